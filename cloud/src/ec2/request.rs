//! Arguments of EC2 calls.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;

use vpc_types::{SecurityGroupId, SubnetId};

/// EC2 keeps tokens of at most 64 ASCII characters.
const CLIENT_TOKEN_MAX: usize = 64;

/// What makes a create repeatable: the same token with the same parameters gives the first result again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientToken(Box<str>);

/// A text that EC2 would not take as a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client token {0:?} must be 1 to 64 printable ASCII characters")]
pub struct ClientTokenError(String);

impl ClientToken {
    /// 1 to 64 printable ASCII characters; EC2 compares them case-sensitively.
    pub fn parse(text: &str) -> Result<Self, ClientTokenError> {
        let fits = (1..=CLIENT_TOKEN_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(ClientTokenError(text.to_owned()))
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much to allocate to an ENI, in one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Secondary private addresses.
    Addresses(NonZeroU16),
    /// Delegated /28 prefixes.
    Prefixes(NonZeroU16),
}

/// A new ENI. Tags are part of the call, so that it is never without an owner, and because IAM policies may demand them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateEni {
    /// Where its addresses come from.
    pub subnet: SubnetId,
    /// Security groups; empty means the VPC's default group.
    pub groups: Vec<SecurityGroupId>,
    /// Free text; the reference's leak sweep goes by its beginning.
    pub description: String,
    /// Tags set at creation.
    pub tags: BTreeMap<String, String>,
    /// Secondary addresses or prefixes to create it with.
    pub initial: Option<Want>,
    /// Persisted before the call, so that a repetition after a crash finds the same ENI.
    pub client_token: ClientToken,
}

/// A condition on an ENI's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagFilter {
    /// The tag is there, with any value.
    Present(String),
    /// The tag has exactly this value.
    Equals {
        /// Tag key.
        key: String,
        /// Tag value; `*` and `?` are wildcards to EC2.
        value: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_what_ec2_keeps() {
        assert!(ClientToken::parse(&"a".repeat(64)).is_ok());
        for bad in ["", &"a".repeat(65), "a b", "é", "a\n"] {
            assert!(ClientToken::parse(bad).is_err(), "{bad:?}");
        }
    }
}
