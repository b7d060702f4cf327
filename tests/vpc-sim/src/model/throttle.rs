//! EC2's request token buckets: one per action and account, refilled steadily; a call without a token is refused at
//! once. Sizes and rates are those of the EC2 developer guide, "Request throttling".

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Throttle};

/// Whether a describe names a filter or a page size. EC2 charges those to a bigger bucket; ids alone do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breadth {
    /// With a filter or with paging; also every call that is no describe.
    Narrowed,
    /// Neither.
    Everything,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// Fill levels of all buckets. A bucket is full until its first call.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets(BTreeMap<(Action, Breadth), Bucket>);

impl Buckets {
    /// Takes a token, or says there is none.
    pub(super) fn admit(&mut self, throttle: Throttle, now: Duration, action: Action, breadth: Breadth) -> bool {
        let Throttle::Buckets { factor } = throttle else {
            return true;
        };
        let (size, per_second) = bucket_of(action, breadth);
        let (size, per_second) = ((size * factor).max(1.0), per_second * factor);
        let bucket = self
            .0
            .entry((action, breadth))
            .or_insert(Bucket { tokens: size, at: now });
        let elapsed = now.saturating_sub(bucket.at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * per_second).min(size);
        bucket.at = now.max(bucket.at);
        let admitted = bucket.tokens >= 1.0;
        if admitted {
            bucket.tokens -= 1.0;
        }
        admitted
    }
}

/// Size and refill per second.
fn bucket_of(action: Action, breadth: Breadth) -> (f64, f64) {
    match action {
        Action::DescribeInstances | Action::DescribeNetworkInterfaces | Action::DescribeSecurityGroups
            if breadth == Breadth::Everything =>
        {
            (50.0, 10.0)
        }
        Action::DescribeInstances
        | Action::DescribeNetworkInterfaces
        | Action::DescribeSecurityGroups
        | Action::DescribeInstanceTypes
        | Action::DescribeSubnets
        | Action::DescribeVpcs => (100.0, 20.0),
        Action::CreateNetworkInterface
        | Action::DeleteNetworkInterface
        | Action::ModifyNetworkInterfaceAttribute
        | Action::AssignPrivateIpAddresses
        | Action::UnassignPrivateIpAddresses
        | Action::AssignIpv6Addresses => (100.0, 5.0),
        Action::AttachNetworkInterface | Action::DetachNetworkInterface | Action::UnassignIpv6Addresses => (50.0, 5.0),
        Action::CreateTags => (100.0, 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AWS: Throttle = Throttle::Buckets { factor: 1.0 };

    fn admitted(buckets: &mut Buckets, throttle: Throttle, at: Duration, action: Action, calls: usize) -> usize {
        (0..calls)
            .filter(|_| buckets.admit(throttle, at, action, Breadth::Narrowed))
            .count()
    }

    #[test]
    fn a_burst_takes_the_bucket_and_then_the_refill_rate_rules() {
        let mut buckets = Buckets::default();
        let attach = Action::AttachNetworkInterface;
        assert_eq!(admitted(&mut buckets, AWS, Duration::ZERO, attach, 80), 50);
        assert_eq!(admitted(&mut buckets, AWS, Duration::from_millis(199), attach, 9), 0);
        assert_eq!(admitted(&mut buckets, AWS, Duration::from_secs(2), attach, 99), 10);
        assert_eq!(admitted(&mut buckets, AWS, Duration::from_secs(3_600), attach, 99), 50);
    }

    #[test]
    fn actions_and_breadths_have_their_own_buckets() {
        let mut buckets = Buckets::default();
        let describe = Action::DescribeNetworkInterfaces;
        let broad = (0..99)
            .filter(|_| buckets.admit(AWS, Duration::ZERO, describe, Breadth::Everything))
            .count();
        assert_eq!(broad, 50);
        assert_eq!(admitted(&mut buckets, AWS, Duration::ZERO, describe, 999), 100);
        assert_eq!(
            admitted(&mut buckets, AWS, Duration::ZERO, Action::CreateTags, 999),
            100
        );
    }

    #[test]
    fn the_factor_scales_and_off_admits_all() {
        let mut buckets = Buckets::default();
        let tenth = Throttle::Buckets { factor: 0.1 };
        assert_eq!(
            admitted(&mut buckets, tenth, Duration::ZERO, Action::CreateNetworkInterface, 99),
            10
        );
        assert_eq!(
            admitted(
                &mut buckets,
                tenth,
                Duration::from_secs(2),
                Action::CreateNetworkInterface,
                99
            ),
            1
        );
        assert_eq!(
            admitted(
                &mut buckets,
                Throttle::Off,
                Duration::ZERO,
                Action::CreateNetworkInterface,
                500
            ),
            500
        );
    }
}
