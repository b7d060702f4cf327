//! Seeds of netlink readers: what a kernel sent, in a namespace with rules, routes, devices and nftables of several makers.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result};
use netlink::{Protocol, Received, Socket};

/// What is asked for: name of the seed, protocol, message type, address family.
const DUMPS: [(&str, Protocol, u16, u8); 10] = [
    ("links", Protocol::Route, 18, 0),
    ("addresses", Protocol::Route, 22, 2),
    ("routes", Protocol::Route, 26, 2),
    ("neighbours", Protocol::Route, 30, 0),
    ("rules", Protocol::Route, 34, 2),
    ("tables", Protocol::Netfilter, 0xa01, 2),
    ("chains", Protocol::Netfilter, 0xa04, 2),
    ("nft-rules", Protocol::Netfilter, 0xa07, 2),
    ("sets", Protocol::Netfilter, 0xa0a, 2),
    ("counters", Protocol::Netfilter, 0xa13, 2),
];
/// NLM_F_REQUEST | NLM_F_DUMP.
const DUMP: u16 = 0x301;
/// NLMSG_DONE.
const DONE: u16 = 3;
/// Seeds are mutated as a whole: short ones are changed where it matters.
const LONGEST: usize = 8 * 1024;

/// Writes the answers of the current namespace's kernel to the corpus in `directory`.
pub fn record(directory: &Path) -> Result<()> {
    for (name, protocol, kind, family) in DUMPS {
        let target = match protocol {
            Protocol::Route => "route-messages",
            _ => "nft-messages",
        };
        let datagrams = dump(protocol, kind, family).with_context(|| format!("cannot dump {name}"))?;
        for (number, datagram) in datagrams.iter().enumerate() {
            let path = directory.join(target).join(format!("{name}-{number}.bin"));
            fs::create_dir_all(directory.join(target))?;
            fs::write(&path, whole_messages(datagram)).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(())
}

fn dump(protocol: Protocol, kind: u16, family: u8) -> io::Result<Vec<Vec<u8>>> {
    let socket = Socket::open(protocol).map_err(io::Error::other)?;
    // The header of links is the longest; the others ignore what follows theirs unless they check strictly.
    let body = match kind {
        18 => 16,
        22 => 8,
        26 | 30 | 34 => 12,
        _ => 4,
    };
    let mut request = vec![0; 16 + body];
    request[0] = u8::try_from(16 + body).expect("short");
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    request[8] = 1;
    request[16] = family;
    socket.send(&request)?;
    let mut datagrams = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Received::Bytes(len) = socket.receive(&mut buffer)? else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        datagrams.push(buffer[..len].to_vec());
        // It may come along with the last messages.
        if netlink::fuzzing::read(&buffer[..len])
            .iter()
            .any(|message| message.kind == DONE)
        {
            return Ok(datagrams);
        }
    }
}

/// As many messages as are short enough together.
fn whole_messages(datagram: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(header) = datagram.get(end..).and_then(|rest| rest.first_chunk::<4>()) {
        let next = end
            + usize::try_from(u32::from_ne_bytes(*header))
                .unwrap_or(usize::MAX)
                .next_multiple_of(4);
        if next > LONGEST && end > 0 || next > datagram.len() {
            break;
        }
        end = next;
    }
    &datagram[..end]
}
