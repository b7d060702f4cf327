//! The only unsafe code of the crate: system calls that `nix` does not wrap. Each function checks its result and keeps no
//! pointer after it returns.
#![expect(unsafe_code, reason = "thin wrappers around six system calls without a safe binding")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `NS_GET_NSTYPE` of `linux/nsfs.h`: `_IO(0xb7, 0x3)`.
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// `SIOCGIFINDEX` of `linux/sockios.h`, in the type that the C library's ioctl takes: musl takes an int.
const GET_IFINDEX: libc::Ioctl = 0x8933;

/// Sets a `SOL_NETLINK` option that takes an int.
pub(crate) fn set_netlink_option(fd: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    const LEN: libc::socklen_t = 4;
    // SAFETY: the pointer is valid for the length of a c_int during the call, and the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const value).cast(),
            LEN,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Random bytes of the kernel.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    // SAFETY: the kernel writes at most N bytes to the array, which outlives the call.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    match usize::try_from(filled) {
        Ok(filled) if filled == N => Ok(bytes),
        Ok(_) => Err(io::ErrorKind::Interrupted.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Attaches a filter that drops every datagram whose first message is not of this type.
pub(crate) fn filter_by_type(fd: BorrowedFd<'_>, message_type: u16) -> io::Result<()> {
    // The filter machine loads in network order, the header is in host order.
    let wanted = u32::from(u16::from_be_bytes(message_type.to_ne_bytes()));
    let step = |code: u32, jt, jf, k| libc::sock_filter {
        code: u16::try_from(code).unwrap_or(u16::MAX),
        jt,
        jf,
        k,
    };
    let mut program = [
        // Type at offset 4 of the netlink header.
        step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 4),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, wanted),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: `filter` points at four instructions that live until the end of the function; the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>()).unwrap_or(0),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes one datagram. Returns its real length, which exceeds the buffer's if it was cut, and the sender's port id.
pub(crate) fn receive_from(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: libc::c_int) -> io::Result<(usize, u32)> {
    // SAFETY: sockaddr_nl is plain data, for which all zeros is a valid value.
    let mut sender: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    let mut sender_len: libc::socklen_t = 12;
    // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer and `sender_len` (the size of sockaddr_nl, 12) to
    // the address; both outlive the call.
    let len = unsafe {
        libc::recvfrom(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            flags | libc::MSG_TRUNC,
            (&raw mut sender).cast(),
            &raw mut sender_len,
        )
    };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    Ok((len, sender.nl_pid))
}

/// Index of the device with this name in the namespace of the socket. `name` must fit in `IFNAMSIZ` with its NUL.
pub(crate) fn device_index(fd: BorrowedFd<'_>, name: &str) -> io::Result<u32> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: ifreq is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: SIOCGIFINDEX reads ifr_name, which is NUL-terminated, and writes ifr_ifindex, both inside `request`.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), GET_IFINDEX, &raw mut request) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFINDEX succeeded, so the kernel has written this member of the union.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    u32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))
}

/// The `CLONE_NEW*` value that tells the kind of a namespace file; ENOTTY when it is no namespace.
pub(crate) fn namespace_kind(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours.
    let kind = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(kind)
    }
}
