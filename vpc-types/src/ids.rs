//! EC2 resource ids. All have the form `<prefix>-<hex digits>`; EC2 itself uses 8 or 17 digits.

use std::fmt;
use std::str::FromStr;

/// A text that is no id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind} id: expected {prefix} followed by 1 to 32 hexadecimal digits")]
pub struct IdError {
    kind: &'static str,
    prefix: &'static str,
    text: String,
}

fn is_id(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| (1..=32).contains(&rest.len()) && rest.bytes().all(|b| b.is_ascii_hexdigit()))
}

macro_rules! id {
    ($name:ident, $prefix:literal, $kind:literal) => {
        #[doc = concat!("Id of ", $kind, ": `", $prefix, "` and hexadecimal digits.")]
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks the form, not the existence.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                if is_id(text, $prefix) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError {
                        kind: $kind,
                        prefix: $prefix,
                        text: text.into(),
                    })
                }
            }

            /// The id as EC2 spells it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::parse(text)
            }
        }
    };
}

id!(EniId, "eni-", "an ENI");
id!(AttachmentId, "eni-attach-", "an ENI attachment");
id!(SubnetId, "subnet-", "a subnet");
id!(SecurityGroupId, "sg-", "a security group");
id!(InstanceId, "i-", "an instance");
id!(VpcId, "vpc-", "a VPC");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_text_and_refuse_other_kinds() {
        assert_eq!(
            EniId::parse("eni-0123456789abcdef0").unwrap().as_str(),
            "eni-0123456789abcdef0"
        );
        for bad in ["", "eni-", "eni-xyz", "eni-attach-1", "subnet-1", "eni-1 ", "eni-1\n"] {
            assert!(EniId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_kind_and_text() {
        let text = SubnetId::parse("sn-1").unwrap_err().to_string();
        assert!(text.contains("subnet") && text.contains("sn-1"), "{text}");
    }
}
