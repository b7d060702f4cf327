//! Instance metadata, version 2: tokens, and a tree of small texts per instance.
//!
//! Owns protocol, tokens and the tree's shape; what it shows comes from the model's IMDS view, which lags behind EC2.
//! Invariant: a peer sees its own instance and no other. An unknown peer gets 404, as if nothing were there.

mod server;
mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use vpc_types::InstanceId;

pub(crate) use server::serve_connection;

/// Tokens kept; the oldest goes first. A client that lost its token gets 401 and asks for another.
const TOKENS_MAX: usize = 4096;

/// Whether version 1, without tokens, is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenPolicy {
    /// 401 without a token; the default of EKS nodes.
    #[default]
    Required,
    /// Version 1 answers too.
    Optional,
}

/// What the identity documents say of the launch. All nodes share this machine's kernel, which booted long before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// When the simulator made the instance: to its programs it looks as if it had been started again since.
    #[default]
    Simulated,
    /// Just before the kernel booted, as on an instance that runs for the first time.
    BeforeBoot,
}

impl Launch {
    /// The moment in question; `simulated` is when the instance was made.
    fn moment(self, simulated: OffsetDateTime) -> OffsetDateTime {
        /// Seconds from the launch to the kernel's boot.
        const FIRMWARE: i64 = 10;
        let booted = || {
            let stat = fs::read_to_string("/proc/stat").ok()?;
            let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
            OffsetDateTime::from_unix_timestamp(seconds.trim().parse::<i64>().ok()? - FIRMWARE).ok()
        };
        match self {
            Self::Simulated => simulated,
            Self::BeforeBoot => booted().unwrap_or(simulated),
        }
    }
}

/// How IMDS is set up on all instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImdsOptions {
    /// See [`TokenPolicy`].
    pub tokens: TokenPolicy,
    /// IP TTL of token answers: 1 keeps them from pods, EKS nodes commonly have 2.
    pub hop_limit: u8,
    /// See [`Launch`].
    pub launch: Launch,
}

impl Default for ImdsOptions {
    fn default() -> Self {
        Self {
            tokens: TokenPolicy::Required,
            hop_limit: 2,
            launch: Launch::default(),
        }
    }
}

/// Tokens handed out, with whom they are for and when they end.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    next: u64,
    valid: BTreeMap<u64, Token>,
}

#[derive(Debug)]
struct Token {
    text: String,
    instance: InstanceId,
    ends: Duration,
}

impl Tokens {
    fn issue(&mut self, now: Duration, instance: InstanceId, life: Duration) -> String {
        self.next += 1;
        let text = format!(
            "AQAEA{:016x}{}==",
            self.next,
            instance.as_str().trim_start_matches("i-")
        );
        self.valid.insert(
            self.next,
            Token {
                text: text.clone(),
                instance,
                ends: now + life,
            },
        );
        if self.valid.len() > TOKENS_MAX {
            self.valid.pop_first();
        }
        text
    }

    fn is_valid(&mut self, now: Duration, instance: &InstanceId, text: &str) -> bool {
        self.valid.retain(|_, token| token.ends > now);
        self.valid
            .values()
            .any(|token| token.text == text && token.instance == *instance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_instance_and_its_time() {
        let (a, b) = (InstanceId::parse("i-a").unwrap(), InstanceId::parse("i-b").unwrap());
        let mut tokens = Tokens::default();
        let token = tokens.issue(Duration::ZERO, a.clone(), Duration::from_secs(10));
        assert!(tokens.is_valid(Duration::from_secs(9), &a, &token));
        assert!(!tokens.is_valid(Duration::from_secs(9), &b, &token));
        assert!(!tokens.is_valid(Duration::from_secs(10), &a, &token));
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let a = InstanceId::parse("i-a").unwrap();
        let mut tokens = Tokens::default();
        for _ in 0..TOKENS_MAX + 10 {
            tokens.issue(Duration::ZERO, a.clone(), Duration::from_secs(10));
        }
        assert_eq!(tokens.valid.len(), TOKENS_MAX);
    }
}
