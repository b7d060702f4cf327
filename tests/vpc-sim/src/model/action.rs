//! The EC2 actions the model knows.

use std::fmt;

macro_rules! actions {
    ($($name:ident),* $(,)?) => {
        /// An action of the EC2 API.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $(#[doc = concat!("`", stringify!($name), "`")] $name,)*
        }

        impl Action {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name as it stands in requests.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

actions! {
    DescribeNetworkInterfaces, DescribeInstances, DescribeInstanceTypes, DescribeSubnets, DescribeVpcs,
    DescribeSecurityGroups, CreateNetworkInterface, AttachNetworkInterface, DetachNetworkInterface,
    DeleteNetworkInterface, ModifyNetworkInterfaceAttribute, AssignPrivateIpAddresses, UnassignPrivateIpAddresses,
    AssignIpv6Addresses, UnassignIpv6Addresses, CreateTags,
}

impl Action {
    /// The action with this exact name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.name() == name)
    }

    /// Whether it only reads.
    pub fn is_describe(self) -> bool {
        self.name().starts_with("Describe")
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
