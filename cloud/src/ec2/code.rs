//! EC2's error codes and their classes.

use std::fmt;

use super::error::Action;

/// What an error means for whoever made the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Refused for the account's rate: wait, and ask less often.
    Throttled,
    /// EC2's fault, nothing was changed: repeat with backoff.
    Retry,
    /// A mutation that may or may not have been applied: look before asking again.
    Unknown,
    /// Surely not applied: EC2 was never reached.
    NotSent,
    /// The subnet has too few free addresses.
    SubnetFull,
    /// The subnet has free addresses, but no free aligned /28.
    SubnetFragmented,
    /// A limit of the instance, the ENI or the account.
    LimitReached,
    /// What the call names does not exist, any more or yet (the API is eventually consistent).
    Gone,
    /// It exists, but its state forbids this for now: look, then repeat.
    Busy,
    /// The device number is taken on that card.
    SlotTaken,
    /// Credentials or permissions: only a slow repetition makes sense.
    Denied,
    /// A repetition will fail too.
    Fatal,
}

macro_rules! codes {
    ($($variant:ident = $text:literal,)*) => {
        /// EC2's error codes, as far as this version knows them.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other code; empty when the answer had none, as those of a proxy or load balancer.
            Other(String),
        }

        impl ErrorCode {
            /// From EC2's spelling.
            pub fn parse(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }

            /// EC2's spelling.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }
    };
}

codes! {
    RequestLimitExceeded = "RequestLimitExceeded",
    InternalError = "InternalError",
    InternalFailure = "InternalFailure",
    Unavailable = "Unavailable",
    ServiceUnavailable = "ServiceUnavailable",
    UnauthorizedOperation = "UnauthorizedOperation",
    AuthFailure = "AuthFailure",
    InvalidClientTokenId = "InvalidClientTokenId",
    RequestExpired = "RequestExpired",
    ExpiredToken = "ExpiredToken",
    SignatureDoesNotMatch = "SignatureDoesNotMatch",
    MissingParameter = "MissingParameter",
    InvalidParameterCombination = "InvalidParameterCombination",
    InvalidParameter = "InvalidParameter",
    UnknownParameter = "UnknownParameter",
    InvalidParameterValue = "InvalidParameterValue",
    InvalidNetworkInterfaceIdNotFound = "InvalidNetworkInterfaceID.NotFound",
    InvalidNetworkInterfaceIdMalformed = "InvalidNetworkInterfaceID.Malformed",
    InvalidNetworkInterfaceInUse = "InvalidNetworkInterface.InUse",
    InvalidAttachmentIdNotFound = "InvalidAttachmentID.NotFound",
    IncorrectState = "IncorrectState",
    IncorrectInstanceState = "IncorrectInstanceState",
    OperationNotPermitted = "OperationNotPermitted",
    UnsupportedOperation = "UnsupportedOperation",
    AttachmentLimitExceeded = "AttachmentLimitExceeded",
    PrivateIpAddressLimitExceeded = "PrivateIpAddressLimitExceeded",
    NetworkInterfaceLimitExceeded = "NetworkInterfaceLimitExceeded",
    SecurityGroupsPerInterfaceLimitExceeded = "SecurityGroupsPerInterfaceLimitExceeded",
    InsufficientFreeAddressesInSubnet = "InsufficientFreeAddressesInSubnet",
    InsufficientCidrBlocks = "InsufficientCidrBlocks",
    InvalidSubnetIdNotFound = "InvalidSubnetID.NotFound",
    InvalidGroupNotFound = "InvalidGroup.NotFound",
    InvalidSecurityGroupIdNotFound = "InvalidSecurityGroupID.NotFound",
    InvalidInstanceIdNotFound = "InvalidInstanceID.NotFound",
    InvalidInstanceType = "InvalidInstanceType",
    IdempotentParameterMismatch = "IdempotentParameterMismatch",
    InvalidPaginationToken = "InvalidPaginationToken",
    InvalidNextToken = "InvalidNextToken",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.as_str() {
            "" => "no code",
            text => text,
        })
    }
}

/// Codes by which AWS front ends refuse for rate, beside `RequestLimitExceeded`.
const THROTTLES: [&str; 8] = [
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "EC2ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "BandwidthLimitExceeded",
];

pub(super) fn class_of(action: Action, code: &ErrorCode, message: &str, status: u16) -> Class {
    use ErrorCode as C;
    match code {
        C::RequestLimitExceeded => Class::Throttled,
        C::Unavailable | C::ServiceUnavailable | C::InvalidPaginationToken | C::InvalidNextToken => Class::Retry,
        C::InternalError | C::InternalFailure => server_failure(action),
        C::UnauthorizedOperation
        | C::AuthFailure
        | C::InvalidClientTokenId
        | C::RequestExpired
        | C::ExpiredToken
        | C::SignatureDoesNotMatch => Class::Denied,
        C::InvalidParameterValue => class_of_invalid_value(message),
        C::InvalidNetworkInterfaceIdNotFound
        | C::InvalidAttachmentIdNotFound
        | C::InvalidSubnetIdNotFound
        | C::InvalidGroupNotFound
        | C::InvalidSecurityGroupIdNotFound
        | C::InvalidInstanceIdNotFound => Class::Gone,
        C::InvalidNetworkInterfaceInUse | C::IncorrectState => Class::Busy,
        C::AttachmentLimitExceeded
        | C::PrivateIpAddressLimitExceeded
        | C::NetworkInterfaceLimitExceeded
        | C::SecurityGroupsPerInterfaceLimitExceeded => Class::LimitReached,
        C::InsufficientFreeAddressesInSubnet => Class::SubnetFull,
        C::InsufficientCidrBlocks => Class::SubnetFragmented,
        C::MissingParameter
        | C::InvalidParameterCombination
        | C::InvalidParameter
        | C::UnknownParameter
        | C::InvalidNetworkInterfaceIdMalformed
        | C::IncorrectInstanceState
        | C::OperationNotPermitted
        | C::UnsupportedOperation
        | C::InvalidInstanceType
        | C::IdempotentParameterMismatch => Class::Fatal,
        C::Other(text) if THROTTLES.contains(&text.as_str()) => Class::Throttled,
        C::Other(_) => class_of_status(action, status),
    }
}

/// "Failed for an unknown reason" says nothing about what was done before the failure.
fn server_failure(action: Action) -> Class {
    if action.is_mutation() {
        Class::Unknown
    } else {
        Class::Retry
    }
}

/// `InvalidParameterValue` stands for many causes that only its text tells apart.
fn class_of_invalid_value(message: &str) -> Class {
    const DISGUISES: [(&str, Class); 4] = [
        // An exhausted subnet, on the prefix path.
        ("There aren't sufficient free", Class::SubnetFull),
        // A delete while attached or detaching.
        ("is currently in use", Class::Busy),
        ("already has an interface attached at device index", Class::SlotTaken),
        // Unassigning what is not there.
        ("not assigned to", Class::Gone),
    ];
    DISGUISES
        .iter()
        .find(|(text, _)| message.contains(text))
        .map_or(Class::Fatal, |(_, class)| *class)
}

/// An unknown code, or the answer of something between EC2 and us, which may have passed the request on.
fn class_of_status(action: Action, status: u16) -> Class {
    match status {
        429 => Class::Throttled,
        401 | 403 | 407 => Class::Denied,
        500.. => server_failure(action),
        _ => Class::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(action: Action, code: &str, message: &str, status: u16) -> Class {
        class_of(action, &ErrorCode::parse(code), message, status)
    }

    #[test]
    fn every_known_code_keeps_its_spelling() {
        for text in [
            "RequestLimitExceeded",
            "InvalidNetworkInterfaceID.NotFound",
            "InvalidGroup.NotFound",
            "Whatever",
        ] {
            assert_eq!(ErrorCode::parse(text).as_str(), text);
        }
        assert_eq!(ErrorCode::parse("").to_string(), "no code");
    }

    #[test]
    fn an_overloaded_code_is_told_apart_by_its_text() {
        let of = |message| class(Action::AssignPrivateIpAddresses, "InvalidParameterValue", message, 400);
        assert_eq!(
            of("There aren't sufficient free Ipv4 addresses or prefixes"),
            Class::SubnetFull
        );
        assert_eq!(of("Network interface 'eni-1' is currently in use."), Class::Busy);
        assert_eq!(
            of("Instance 'i-1' already has an interface attached at device index '1'."),
            Class::SlotTaken
        );
        assert_eq!(
            of("Some of [10.0.0.5] are not assigned to interface eni-1"),
            Class::Gone
        );
        assert_eq!(of("Address 10.9.9.9 is not in the subnet"), Class::Fatal);
    }

    #[test]
    fn a_failure_inside_ec2_leaves_a_mutation_unknown_and_a_read_repeatable() {
        for (code, status) in [
            ("InternalError", 500),
            ("InternalFailure", 500),
            ("", 502),
            ("", 504),
            ("Novel", 500),
        ] {
            assert_eq!(
                class(Action::CreateNetworkInterface, code, "", status),
                Class::Unknown,
                "{code} {status}"
            );
            assert_eq!(
                class(Action::DescribeSubnets, code, "", status),
                Class::Retry,
                "{code} {status}"
            );
        }
    }

    #[test]
    fn refusals_before_any_work_are_no_unknown_outcomes() {
        let of = |code, status| class(Action::CreateNetworkInterface, code, "", status);
        assert_eq!(of("RequestLimitExceeded", 503), Class::Throttled);
        assert_eq!(of("EC2ThrottledException", 503), Class::Throttled);
        assert_eq!(of("Unavailable", 503), Class::Retry);
        assert_eq!(of("UnauthorizedOperation", 403), Class::Denied);
        assert_eq!(of("InsufficientFreeAddressesInSubnet", 400), Class::SubnetFull);
        assert_eq!(of("InsufficientCidrBlocks", 400), Class::SubnetFragmented);
        assert_eq!(of("AttachmentLimitExceeded", 400), Class::LimitReached);
        assert_eq!(of("InvalidNetworkInterfaceID.NotFound", 400), Class::Gone);
        assert_eq!(of("IdempotentParameterMismatch", 400), Class::Fatal);
        assert_eq!(of("Novel", 400), Class::Fatal);
    }
}
