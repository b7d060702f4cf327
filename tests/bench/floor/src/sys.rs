//! The only unsafe code of the crate: four system calls that `nix` does not wrap.
#![expect(
    unsafe_code,
    reason = "thin wrappers around four system calls without a safe binding"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

/// `SIOCGIFINDEX` of `linux/sockios.h`, in the type that the C library's ioctl takes: musl takes an int.
const GET_IFINDEX: libc::Ioctl = 0x8933;

/// How a child ended, and what it and the children it waited for used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) pid: i32,
    /// Exit status; 128 + n if signal n ended it.
    pub(crate) status: i32,
    pub(crate) cpu: Duration,
    pub(crate) memory_kib: u64,
}

/// Waits for any child.
pub(crate) fn wait_for_any() -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: rusage is plain data, for which all zeros is a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let pid = loop {
        // SAFETY: the kernel writes an int and a struct rusage through the pointers, and both outlive the call.
        let pid = unsafe { libc::wait4(-1, &raw mut status, 0, &raw mut usage) };
        if pid >= 0 {
            break pid;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let status = if libc::WIFSIGNALED(status) {
        128 + libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    };
    Ok(Ended {
        pid,
        status,
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
        memory_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Index of the device with this name in the namespace of the socket.
pub(crate) fn device_index(socket: BorrowedFd<'_>, name: &str) -> io::Result<i32> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    // SAFETY: ifreq is plain data, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: SIOCGIFINDEX reads ifr_name, which is NUL-terminated, and writes ifr_ifindex, both inside `request`.
    if unsafe { libc::ioctl(socket.as_raw_fd(), GET_IFINDEX, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFINDEX succeeded, so the kernel has written this member of the union.
    Ok(unsafe { request.ifr_ifru.ifru_ifindex })
}

/// Sets the niceness of the calling process and of what it will start.
pub(crate) fn set_niceness(niceness: i32) -> io::Result<()> {
    // SAFETY: setpriority takes no pointers.
    if unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes a thread (0: the calling one) and what it will start run in the round-robin real-time class, lowest priority. Not by the
/// C library's function: musl's does nothing.
pub(crate) fn set_realtime(thread: i32) -> io::Result<()> {
    // SAFETY: sched_param is plain data, for which all zeros is a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = 1;
    // SAFETY: the kernel reads a struct sched_param, which begins with the priority, and keeps no pointer.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread,
            libc::SCHED_RR,
            &raw const parameters,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
