//! The EC2 API: what can be asked ([`traits`], [`request`]), what comes back ([`eni`], [`error`]), and the SDK behind it.

mod call;
pub(crate) mod client;
mod code;
mod convert;
pub(crate) mod eni;
pub(crate) mod error;
mod mutations;
pub(crate) mod observe;
mod reads;
pub(crate) mod request;
pub(crate) mod traits;

#[cfg(test)]
mod tests;
