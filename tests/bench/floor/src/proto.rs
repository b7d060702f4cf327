//! As much of protobuf as a request and a reply need.

/// A message that is being written.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Appends a string field; an empty one is left out, as proto3 does.
    #[must_use]
    pub fn text(mut self, field: u8, text: &str) -> Self {
        if !text.is_empty() {
            self.0.push(field << 3 | 2);
            let mut len = text.len();
            while len > 0x7f {
                self.0.push(u8::try_from(len & 0x7f).unwrap_or(0) | 0x80);
                len >>= 7;
            }
            self.0.push(u8::try_from(len).unwrap_or(0));
            self.0.extend_from_slice(text.as_bytes());
        }
        self
    }

    /// The message's bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// A field's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Numbers and booleans.
    Number(u64),
    /// Texts and messages.
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The bytes, empty for a number.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => &[],
        }
    }
}

/// The first field with this number. Fixed-width fields, which our messages do not have, end the search.
pub fn find(mut message: &[u8], wanted: u64) -> Option<Value<'_>> {
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut message)?),
            2 => {
                let len = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(len)?;
                message = rest;
                Value::Bytes(bytes)
            }
            _ => return None,
        };
        if key >> 3 == wanted {
            return Some(value);
        }
    }
    None
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_found() {
        let long = "x".repeat(300);
        let bytes = Writer::default().text(1, "").text(2, "two").text(9, &long).bytes();
        assert_eq!(find(&bytes, 1), None);
        assert_eq!(find(&bytes, 2), Some(Value::Bytes(b"two")));
        assert_eq!(find(&bytes, 9), Some(Value::Bytes(long.as_bytes())));
        assert_eq!(find(&[0x20, 0xfe, 0x01], 4), Some(Value::Number(254)));
        assert_eq!(find(&[0x12, 0x7f, 0x01], 2), None, "a cut message has no fields");
    }
}
