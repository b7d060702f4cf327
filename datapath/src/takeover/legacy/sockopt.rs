//! The only unsafe code of the crate: the four socket options of `iptables-legacy`, which no safe binding has. Each function
//! checks lengths and results, and the kernel keeps no pointer beyond the call.

#![expect(unsafe_code, reason = "getsockopt and setsockopt with structures of their own")]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::table::{COUNTERS_AT, ENTRIES_AT, INFO_LEN, NAME_LEN, REPLACE_COUNTERS_AT, name_field};

/// `IPT_SO_GET_INFO` and `IPT_SO_SET_REPLACE`.
const GET_INFO: libc::c_int = 64;
const SET_REPLACE: libc::c_int = 64;
/// `IPT_SO_GET_ENTRIES` and `IPT_SO_SET_ADD_COUNTERS`.
const GET_ENTRIES: libc::c_int = 65;
const SET_ADD_COUNTERS: libc::c_int = 65;

// The kernel's structures contain a pointer and are aligned as on 64-bit machines.
const _: () = assert!(size_of::<*const u8>() == 8);

/// Packets and bytes of one entry.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counter {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// A socket through which the tables of the namespace it was made in are read and replaced.
#[derive(Debug)]
pub(super) struct TableSocket(OwnedFd);

impl TableSocket {
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, kind, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just returned it, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// `struct ipt_getinfo` of a table. Loads the table if it is not there.
    pub(super) fn info(&self, table: &str) -> io::Result<Vec<u8>> {
        let mut buffer = vec![0; INFO_LEN];
        buffer[..NAME_LEN].copy_from_slice(&name_field(table));
        self.get(GET_INFO, &mut buffer)?;
        Ok(buffer)
    }

    /// The entries of a table, of which there are `size` bytes.
    pub(super) fn entries(&self, table: &str, size: u32) -> io::Result<Vec<u8>> {
        let len = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut buffer = vec![0; ENTRIES_AT + len];
        buffer[..NAME_LEN].copy_from_slice(&name_field(table));
        buffer[NAME_LEN..NAME_LEN + 4].copy_from_slice(&size.to_ne_bytes());
        self.get(GET_ENTRIES, &mut buffer)?;
        Ok(buffer.split_off(ENTRIES_AT))
    }

    fn get(&self, option: libc::c_int, buffer: &mut [u8]) -> io::Result<()> {
        let mut len = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: buffer and length are valid for writes during the call; the kernel writes at most `len` bytes.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_IP,
                option,
                buffer.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        checked(result)
    }

    /// Replaces a table. `message` is `struct ipt_replace` with its entries; the counters of the `old` entries come back.
    pub(super) fn replace(&self, message: &[u8], old: u32) -> io::Result<Vec<Counter>> {
        let count = usize::try_from(old).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut counters = vec![Counter::default(); count];
        let mut message = message.to_vec();
        let field = message
            .get_mut(REPLACE_COUNTERS_AT..REPLACE_COUNTERS_AT + 8)
            .ok_or(io::ErrorKind::InvalidData)?;
        let address: u64 = counters.as_mut_ptr().expose_provenance() as u64;
        field.copy_from_slice(&address.to_ne_bytes());
        // The kernel writes as many counters as the message says: never more than there is room for.
        let said = message.get(REPLACE_COUNTERS_AT - 4..REPLACE_COUNTERS_AT);
        if said != Some(&old.to_ne_bytes()[..]) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.set(SET_REPLACE, &message)?;
        Ok(counters)
    }

    /// Adds counts to the entries of a table, of which there must be as many.
    pub(super) fn add_counters(&self, table: &str, counters: &[Counter]) -> io::Result<()> {
        let count = u32::try_from(counters.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut message = vec![0; COUNTERS_AT];
        message[..NAME_LEN].copy_from_slice(&name_field(table));
        message[NAME_LEN..NAME_LEN + 4].copy_from_slice(&count.to_ne_bytes());
        for counter in counters {
            message.extend(counter.packets.to_ne_bytes());
            message.extend(counter.bytes.to_ne_bytes());
        }
        self.set(SET_ADD_COUNTERS, &message)
    }

    fn set(&self, option: libc::c_int, message: &[u8]) -> io::Result<()> {
        let len = libc::socklen_t::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the message is valid for reads during the call. The one pointer within it, in `replace`, was made from
        // memory that lives longer than the call and has room for what the kernel writes there.
        let result =
            unsafe { libc::setsockopt(self.0.as_raw_fd(), libc::SOL_IP, option, message.as_ptr().cast(), len) };
        checked(result)
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
