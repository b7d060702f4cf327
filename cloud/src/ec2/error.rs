//! What went wrong with an EC2 call, and what that means for whoever made it.
//!
//! The class is decided here and nowhere else, also where EC2 hides the cause in the text of an overloaded code.
//! Invariant: a mutation's class is [`Class::Unknown`] unless it is certain that nothing was changed.

use std::error::Error;
use std::fmt;

use super::code::class_of;
pub use super::code::{Class, ErrorCode};

/// An API call this crate makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// `DescribeNetworkInterfaces`
    DescribeNetworkInterfaces,
    /// `DescribeSubnets`
    DescribeSubnets,
    /// `DescribeInstanceTypes`
    DescribeInstanceTypes,
    /// `CreateNetworkInterface`
    CreateNetworkInterface,
    /// `AttachNetworkInterface`
    AttachNetworkInterface,
    /// `ModifyNetworkInterfaceAttribute`
    ModifyNetworkInterfaceAttribute,
    /// `AssignPrivateIpAddresses`
    AssignPrivateIpAddresses,
    /// `UnassignPrivateIpAddresses`
    UnassignPrivateIpAddresses,
    /// `DetachNetworkInterface`
    DetachNetworkInterface,
    /// `DeleteNetworkInterface`
    DeleteNetworkInterface,
}

impl Action {
    /// EC2's name of it, also its IAM action without `ec2:`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSubnets => "DescribeSubnets",
            Self::DescribeInstanceTypes => "DescribeInstanceTypes",
            Self::CreateNetworkInterface => "CreateNetworkInterface",
            Self::AttachNetworkInterface => "AttachNetworkInterface",
            Self::ModifyNetworkInterfaceAttribute => "ModifyNetworkInterfaceAttribute",
            Self::AssignPrivateIpAddresses => "AssignPrivateIpAddresses",
            Self::UnassignPrivateIpAddresses => "UnassignPrivateIpAddresses",
            Self::DetachNetworkInterface => "DetachNetworkInterface",
            Self::DeleteNetworkInterface => "DeleteNetworkInterface",
        }
    }

    /// Whether it can change something, so that its outcome can be unknown.
    pub fn is_mutation(self) -> bool {
        !matches!(
            self,
            Self::DescribeNetworkInterfaces | Self::DescribeSubnets | Self::DescribeInstanceTypes
        )
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far a request without an answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// No connection carried it: nothing was changed.
    NotSent,
    /// EC2 may have received it.
    MaybeSent,
}

/// Why an EC2 call gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Ec2Error {
    /// EC2 answered with an error.
    #[error("{action}: {code} (HTTP {status}, request {request}): {message}", request = request_id.as_deref().unwrap_or("-"))]
    Refused {
        /// The call.
        action: Action,
        /// EC2's code.
        code: ErrorCode,
        /// EC2's text, for people.
        message: String,
        /// HTTP status.
        status: u16,
        /// For AWS support.
        request_id: Option<String>,
    },
    /// No answer: time-out, connection refused or lost, no credentials.
    #[error("{action}: no answer ({delivery:?})")]
    Unanswered {
        /// The call.
        action: Action,
        /// Whether the request may have arrived.
        delivery: Delivery,
        /// What the transport says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer that is no EC2 answer to this call.
    #[error("{action}: unreadable answer (HTTP {status})")]
    Unreadable {
        /// The call.
        action: Action,
        /// HTTP status.
        status: u16,
        /// What the parser says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A well-formed answer without a value that must be there, or with one that cannot be.
    #[error("{action}: {field} of {object} is missing or malformed: {value:?}")]
    Malformed {
        /// The call.
        action: Action,
        /// EC2's name of the value.
        field: &'static str,
        /// The ENI, subnet or type it belongs to, as far as known.
        object: String,
        /// What was there.
        value: Option<String>,
    },
    /// A describe that went on for more pages than an account can fill.
    #[error("{action}: more than {pages} pages")]
    Endless {
        /// The call.
        action: Action,
        /// Pages read.
        pages: usize,
    },
    /// The SDK refused to build the request: a bug.
    #[error("{action}: the request cannot be built")]
    Request {
        /// The call.
        action: Action,
        /// What the SDK says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Ec2Error {
    /// The call.
    pub fn action(&self) -> Action {
        match self {
            Self::Refused { action, .. }
            | Self::Unanswered { action, .. }
            | Self::Unreadable { action, .. }
            | Self::Malformed { action, .. }
            | Self::Endless { action, .. }
            | Self::Request { action, .. } => *action,
        }
    }

    /// What it means for the caller.
    pub fn class(&self) -> Class {
        let unread = |action: &Action, read| if action.is_mutation() { Class::Unknown } else { read };
        match self {
            Self::Refused {
                action,
                code,
                message,
                status,
                ..
            } => class_of(*action, code, message, *status),
            Self::Unanswered {
                delivery: Delivery::NotSent,
                ..
            } => Class::NotSent,
            Self::Unanswered { action, .. } | Self::Unreadable { action, .. } => unread(action, Class::Retry),
            Self::Malformed { action, .. } => unread(action, Class::Fatal),
            Self::Endless { .. } | Self::Request { .. } => Class::Fatal,
        }
    }

    /// EC2's code, if EC2 answered with an error.
    pub fn code(&self) -> Option<&ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(code),
            Self::Unanswered { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Endless { .. }
            | Self::Request { .. } => None,
        }
    }

    /// HTTP status, if there was an answer that is an error.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } | Self::Unreadable { status, .. } => Some(*status),
            Self::Unanswered { .. } | Self::Malformed { .. } | Self::Endless { .. } | Self::Request { .. } => None,
        }
    }

    /// EC2's id of the request, for AWS support.
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Refused { request_id, .. } => request_id.as_deref(),
            Self::Unanswered { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Endless { .. }
            | Self::Request { .. } => None,
        }
    }

    /// EC2's own words, if EC2 answered with an error.
    pub fn message(&self) -> Option<&str> {
        match self {
            Self::Refused { message, .. } => Some(message),
            Self::Unanswered { .. }
            | Self::Unreadable { .. }
            | Self::Malformed { .. }
            | Self::Endless { .. }
            | Self::Request { .. } => None,
        }
    }
}
