//! ICMP echo by a raw socket, which also an unprivileged user has in a user namespace of its own.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, bind, socket};
use nix::unistd::gettid;

use super::{ProbeError, failed, failed_call};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// See `Vantage::ping`. Runs on a thread that is in the right namespace already.
pub(super) fn ping(
    source: Option<Ipv4Addr>,
    targets: &[Ipv4Addr],
    deadline: Duration,
) -> Result<Vec<Option<Duration>>, ProbeError> {
    let socket = open(source)?;
    let start = Instant::now();
    // Tells our answers from those to other pings in the namespace: all raw sockets get all answers.
    let [.., high, low] = gettid().as_raw().to_be_bytes();
    let id = [high, low];
    for (sequence, target) in (0u16..).zip(targets) {
        // No route: silence is the result.
        let _ = socket.send_to(&echo_request(id, sequence), SocketAddrV4::new(*target, 0));
    }
    let mut answers = vec![None; targets.len()];
    let mut packet = [0; 256];
    while answers.contains(&None) {
        let left = deadline.saturating_sub(start.elapsed());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left)).map_err(failed("setsockopt"))?;
        if let Ok((len, SocketAddr::V4(from))) = socket.recv_from(&mut packet)
            && let Some(sequence) = sequence_of_reply(&packet[..len], id)
            && targets.get(usize::from(sequence)) == Some(from.ip())
        {
            answers[usize::from(sequence)] = Some(start.elapsed());
        }
    }
    Ok(answers)
}

/// A raw socket in the clothes of a UDP socket: only send_to, recv_from and the time-out are used, which are the same.
fn open(source: Option<Ipv4Addr>) -> Result<UdpSocket, ProbeError> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )
    .map_err(failed_call("socket for ICMP"))?;
    if let Some(source) = source {
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0))).map_err(failed_call("bind"))?;
    }
    Ok(UdpSocket::from(fd))
}

fn echo_request(id: [u8; 2], sequence: u16) -> [u8; 16] {
    let mut packet = *b"\0\0\0\0\0\0\0\0vpc-ping";
    packet[0] = ECHO_REQUEST;
    packet[4..6].copy_from_slice(&id);
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum = checksum(&packet).to_be_bytes();
    packet[2..4].copy_from_slice(&sum);
    packet
}

/// The Internet checksum of RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let [.., high, low] = ((folded & 0xffff) + (folded >> 16)).to_be_bytes();
    !u16::from_be_bytes([high, low])
}

/// A raw socket delivers the IP header too.
fn sequence_of_reply(packet: &[u8], id: [u8; 2]) -> Option<u16> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    match *packet.get(header..header + 8)? {
        [ECHO_REPLY, 0, _, _, a, b, high, low] if [a, b] == id => Some(u16::from_be_bytes([high, low])),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_with_its_checksum_sums_to_zero() {
        assert_eq!(checksum(&echo_request([0x12, 0x34], 7)), 0);
    }

    #[test]
    fn only_replies_with_our_id_are_ours() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 9, 9, 1, 2, 0, 5]);
        assert_eq!(sequence_of_reply(&packet, [1, 2]), Some(5));
        assert_eq!(sequence_of_reply(&packet, [1, 3]), None);
        assert_eq!(sequence_of_reply(&packet[..22], [1, 2]), None);
        assert_eq!(sequence_of_reply(&[], [1, 2]), None);
    }
}
