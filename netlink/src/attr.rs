//! Reader of netlink attributes: bounds-checked, tolerant of attributes that are unknown, refusing none.
//!
//! Foreign devices and rules of any shape pass through it, so a malformed tail ends the iteration instead of the program.

/// `NLA_TYPE_MASK` of `linux/netlink.h`: the type without the nested and byte-order bits.
const TYPE_MASK: u16 = 0x3fff;
const HEADER_LEN: usize = 4;

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type, without flag bits.
    pub kind: u16,
    /// Payload without padding.
    pub value: &'a [u8],
}

/// Iterator over a run of attributes.
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Reads `bytes` from the first attribute on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Reads the attributes behind a fixed header of `len` bytes; none if the message is shorter.
    pub fn after_header(payload: &'a [u8], len: usize) -> Self {
        Self(payload.get(len..).unwrap_or_default())
    }

    /// Payload of the first attribute of this type.
    pub fn find_value(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|attribute| attribute.kind == kind)
            .map(|attribute| attribute.value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let (header, _) = self.0.split_first_chunk::<HEADER_LEN>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & TYPE_MASK;
        let Some(value) = self.0.get(HEADER_LEN..len) else {
            self.0 = &[];
            return None;
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Attribute { kind, value })
    }
}

/// A u32 in host order, as rtnetlink uses it.
pub fn parse_u32(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

/// A string with or without its terminating NUL; `None` unless UTF-8.
pub fn parse_str(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_attributes_follow_each_other_and_flags_are_masked() {
        let bytes = [5, 0, 3, 0x80, b'x', 0, 0, 0, 8, 0, 15, 0, 1, 0, 0, 0];
        let all: Vec<_> = Attributes::new(&bytes).collect();
        assert_eq!(all[0], Attribute { kind: 3, value: b"x" });
        assert_eq!(Attributes::new(&bytes).find_value(15).and_then(parse_u32), Some(1));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn every_malformed_tail_ends_the_iteration() {
        for bytes in [
            &[][..],
            &[1],
            &[3, 0, 1, 0],
            &[0, 0, 0, 0, 1, 2, 3, 4],
            &[9, 0, 1, 0, 1, 2, 3, 4],
            &[255, 255, 1, 0],
        ] {
            assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
        }
        assert_eq!(Attributes::after_header(&[1, 2], 4).count(), 0);
    }

    #[test]
    fn the_last_attribute_may_lack_its_padding() {
        assert_eq!(
            Attributes::new(&[5, 0, 1, 0, 7]).collect::<Vec<_>>(),
            [Attribute { kind: 1, value: &[7] }]
        );
    }
}
