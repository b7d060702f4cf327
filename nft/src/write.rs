//! Writer of nf_tables messages: one growing buffer, nested attributes patched at their end, and a note of what stands
//! where, so that a byte offset in the kernel's refusal becomes the name of an expression.

use crate::numbers::{SUBSYSTEM, flag};

const NESTED: u16 = 0x8000;
const MESSAGE_HEADER: usize = 16;

/// What was written at an offset of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) offset: usize,
    pub(crate) place: String,
}

/// One message in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) start: usize,
    pub(crate) label: String,
    pub(crate) marks: Vec<Mark>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Writer {
    pub(crate) buffer: Vec<u8>,
    pub(crate) messages: Vec<Written>,
}

impl Writer {
    /// Writes one nf_tables message; its sequence number is its position.
    pub(crate) fn message(
        &mut self,
        label: impl Into<String>,
        (kind, flags): (u16, u16),
        family: u8,
        body: impl FnOnce(&mut Self),
    ) {
        self.raw_message(label, (SUBSYSTEM | kind, flags), (family, 0), body);
    }

    pub(crate) fn raw_message(
        &mut self,
        label: impl Into<String>,
        (kind, flags): (u16, u16),
        (family, resource): (u8, u16),
        body: impl FnOnce(&mut Self),
    ) {
        let start = self.buffer.len();
        let sequence = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        self.messages.push(Written {
            start,
            label: label.into(),
            marks: Vec::new(),
        });
        self.buffer.extend([0; 4]);
        self.buffer.extend(kind.to_ne_bytes());
        self.buffer.extend((flags | flag::REQUEST).to_ne_bytes());
        self.buffer.extend(sequence.to_ne_bytes());
        self.buffer.extend([0; 4]);
        self.buffer.extend([family, 0]);
        self.buffer.extend(resource.to_be_bytes());
        debug_assert_eq!(self.buffer.len() - start, MESSAGE_HEADER + 4);
        body(self);
        let len = u32::try_from(self.buffer.len() - start).unwrap_or(u32::MAX);
        self.buffer[start..start + 4].copy_from_slice(&len.to_ne_bytes());
    }

    /// Notes that `place` begins here.
    pub(crate) fn mark(&mut self, place: impl FnOnce() -> String) {
        let len = self.buffer.len();
        if let Some(message) = self.messages.last_mut() {
            message.marks.push(Mark {
                offset: len - message.start,
                place: place(),
            });
        }
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.attribute_header(kind, value.len());
        self.buffer.extend_from_slice(value);
        self.pad();
    }

    /// A string with its terminating NUL.
    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.attribute_header(kind, value.len() + 1);
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn i32(&mut self, kind: u16, value: i32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) {
        self.bytes(kind, &[value]);
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.attribute_header(kind | NESTED, 0);
        body(self);
        let len = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.buffer[start..start + 2].copy_from_slice(&len.to_ne_bytes());
    }

    /// An attribute is at most 65,535 bytes long; only element lists could exceed that, and they are split. A length that does
    /// not fit is written as the maximum, which the kernel refuses.
    fn attribute_header(&mut self, kind: u16, payload: usize) {
        let len = u16::try_from(payload + 4).unwrap_or(u16::MAX);
        self.buffer.extend(len.to_ne_bytes());
        self.buffer.extend(kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.buffer.resize(self.buffer.len().next_multiple_of(4), 0);
    }
}
