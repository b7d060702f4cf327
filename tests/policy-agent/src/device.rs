//! The host's end of a pod's link, found as the real agent finds it.

use std::io;

use netlink::packet::RouteNetlinkMessage as Message;
use netlink::packet::tc::{TcAttribute, TcHandle, TcMessage};
use netlink::{Attributes, Batch, Errno, RouteSocket, parse_str, parse_u32};

/// In the order in which they are tried.
const PREFIXES: [&str; 2] = ["eni", "vlan"];
/// Where filters for both directions hang.
const DISCIPLINE: &str = "clsact";
/// `NLM_F_CREATE | NLM_F_EXCL`.
const ADD: u16 = 0x600;

/// Finds the device of a pod's interface and makes it ready for filters; its name.
pub(crate) fn attach(namespace: &str, pod: &str, index: i32) -> io::Result<String> {
    let mut socket = RouteSocket::open().map_err(io::Error::other)?;
    let suffix = suffix(namespace, pod, index);
    let names = PREFIXES.map(|prefix| format!("{prefix}{suffix}"));
    let found = names
        .into_iter()
        .find_map(|name| Some((socket.device_index(&name).ok()?, name)));
    let (device, name) = found.ok_or_else(|| io::Error::other(format!("no device of interface {index}")))?;
    let device = i32::try_from(device).map_err(io::Error::other)?;
    let mut message = TcMessage::with_index(device);
    message.header.parent = TcHandle::CLSACT;
    message.header.handle = TcHandle {
        major: TcHandle::CLSACT.major,
        minor: 0,
    };
    message.attributes.push(TcAttribute::Kind(DISCIPLINE.to_owned()));
    let mut batch = Batch::new();
    batch.push("add queueing discipline", ADD, Message::NewQueueDiscipline(message));
    let refused = socket.apply(&batch).map_err(io::Error::other)?;
    if let Some(error) = refused.into_iter().find(|error| error.errno != Errno::EEXIST) {
        return Err(io::Error::other(error));
    }
    if has_discipline(&mut socket, device)? {
        Ok(name)
    } else {
        Err(io::Error::other(format!("{name} has no {DISCIPLINE}")))
    }
}

/// Eleven digits of the hash of the names; interfaces after the first add their index.
fn suffix(namespace: &str, pod: &str, index: i32) -> String {
    let named = match index {
        0 => format!("{namespace}.{pod}"),
        index => format!("{namespace}.{pod}.{index}"),
    };
    let mut digits = sha1_smol::Sha1::from(named).digest().to_string();
    digits.truncate(11);
    digits
}

fn has_discipline(socket: &mut RouteSocket, device: i32) -> io::Result<bool> {
    const HEADER: usize = 20;
    const KIND: u16 = 1;
    let all = Message::GetQueueDiscipline(TcMessage::default());
    let found = socket
        .dump_raw("list queueing disciplines", &all)
        .map_err(io::Error::other)?;
    Ok(found.iter().any(|message| {
        let on_device = message.payload.get(4..8).and_then(parse_u32) == u32::try_from(device).ok();
        let kind = Attributes::after_header(&message.payload, HEADER).find_value(KIND);
        on_device && kind.and_then(parse_str) == Some(DISCIPLINE)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_reference() {
        assert_eq!(suffix("default", "nginx", 0), "c440f455693");
        assert_eq!(suffix("default", "nginx", 1), "e48ae9c2f34");
        assert_eq!(suffix("kube-system", "coredns-5d78c9869d-abcde", 0), "4d5f75c480c");
    }
}
