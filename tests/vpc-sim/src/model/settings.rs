//! What can be tuned in the model: seed, delays, throttling, quotas. Numbers without a public source are named as
//! assumptions and are all settings, never constants in the code that uses them.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use super::Action;

/// A duration that may vary from draw to draw.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Delay {
    /// At once.
    #[default]
    None,
    /// Always the same.
    Fixed(Duration),
    /// Evenly spread.
    Uniform {
        /// Shortest.
        min: Duration,
        /// Longest.
        max: Duration,
    },
    /// Most draws near the median, with a long tail.
    LogNormal {
        /// Half of the draws are shorter.
        median: Duration,
        /// One draw in a hundred is longer.
        p99: Duration,
    },
}

impl Delay {
    /// A fixed delay in milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self::Fixed(Duration::from_millis(millis))
    }

    pub(crate) fn sample(self, rng: &mut Rng) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Fixed(delay) => delay,
            Self::Uniform { min, max } => min + max.saturating_sub(min).mul_f64(rng.f64()),
            Self::LogNormal { median, p99 } => log_normal(median, p99, rng),
        }
    }
}

/// Box-Muller; 2.3263 is the normal distribution's 99th percentile. The tail is cut at four deviations.
fn log_normal(median: Duration, p99: Duration, rng: &mut Rng) -> Duration {
    if median.is_zero() || p99 <= median {
        return median;
    }
    let deviation = (p99.as_secs_f64() / median.as_secs_f64()).ln() / 2.3263;
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = (radius * (std::f64::consts::TAU * rng.f64()).cos()).clamp(-4.0, 4.0);
    median.mul_f64((deviation * normal).exp())
}

/// Whether calls are counted against EC2's token buckets.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Throttle {
    /// Every call is admitted.
    #[default]
    Off,
    /// EC2's published buckets, sizes and refill rates times `factor`.
    Buckets {
        /// 1.0 is what an account has by default.
        factor: f64,
    },
}

/// What calls that name a just created ENI get while describes do not show it yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FreshIds {
    /// They succeed.
    #[default]
    Known,
    /// They fail with `InvalidNetworkInterfaceID.NotFound`, as EC2's documentation warns.
    UnknownUntilVisible,
}

/// How a subnet chooses among its free addresses and prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AllocationPolicy {
    /// Pseudo-random, as EC2 appears to do.
    #[default]
    Random,
    /// Lowest free address first: easy to read in a demo.
    Lowest,
    /// Spread over all /28 blocks: the fastest way to leave no block for a prefix.
    Worst,
}

/// The model's settings. All may be changed while it runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Everything random derives from it. Only read when the model is made.
    pub seed: u64,
    /// How long each call takes to answer; absent actions take no time. Effects happen at the start of it.
    pub latency: BTreeMap<Action, Delay>,
    /// How old a state describes may show, drawn per change.
    pub describe_lag: Delay,
    /// How old a state IMDS may show, drawn per change.
    pub imds_lag: Delay,
    /// From the attach call to the device on the instance and the state `attached`.
    pub attach: Delay,
    /// From the detach call to the device's disappearance.
    pub unplug: Delay,
    /// From the detach call to `available`; never before the device is gone.
    pub detach: Delay,
    /// Token buckets.
    pub throttle: Throttle,
    /// See [`FreshIds`].
    pub fresh_ids: FreshIds,
    /// ENIs per account and region; EC2's default quota is 5 000.
    pub eni_quota: usize,
    /// The account that owns everything.
    pub account: String,
}

impl Settings {
    /// No delay anywhere, no throttling.
    pub fn instant(seed: u64) -> Self {
        Self {
            seed,
            latency: BTreeMap::new(),
            describe_lag: Delay::None,
            imds_lag: Delay::None,
            attach: Delay::None,
            unplug: Delay::None,
            detach: Delay::None,
            throttle: Throttle::Off,
            fresh_ids: FreshIds::Known,
            eni_quota: 5_000,
            account: "123456789012".to_owned(),
        }
    }

    /// Latencies of the size users see, EC2's buckets, lagging views. The figures are assumptions gathered from
    /// public reports, not measurements of AWS.
    pub fn aws(seed: u64) -> Self {
        let mut latency: BTreeMap<_, _> = Action::ALL
            .iter()
            .filter(|action| action.is_describe())
            .map(|action| (*action, Delay::millis(100)))
            .collect();
        for (action, millis) in [
            (Action::CreateNetworkInterface, 600),
            (Action::AttachNetworkInterface, 500),
            (Action::DetachNetworkInterface, 500),
            (Action::DeleteNetworkInterface, 300),
            (Action::ModifyNetworkInterfaceAttribute, 200),
            (Action::AssignPrivateIpAddresses, 500),
            (Action::UnassignPrivateIpAddresses, 300),
            (Action::AssignIpv6Addresses, 500),
            (Action::UnassignIpv6Addresses, 300),
            (Action::CreateTags, 200),
        ] {
            latency.insert(action, Delay::millis(millis));
        }
        let seconds = |min, max| Delay::Uniform {
            min: Duration::from_secs(min),
            max: Duration::from_secs(max),
        };
        let lag = |median, p99| Delay::LogNormal {
            median: Duration::from_millis(median),
            p99: Duration::from_millis(p99),
        };
        Self {
            latency,
            describe_lag: lag(200, 5_000),
            imds_lag: lag(700, 8_000),
            attach: lag(1_500, 10_000),
            unplug: seconds(1, 5),
            detach: seconds(2, 15),
            throttle: Throttle::Buckets { factor: 1.0 },
            ..Self::instant(seed)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_normal_delay_has_its_median_and_tail() {
        let (median, p99) = (Duration::from_millis(700), Duration::from_secs(8));
        let mut rng = Rng::with_seed(1);
        let mut draws: Vec<_> = (0..20_000)
            .map(|_| Delay::LogNormal { median, p99 }.sample(&mut rng))
            .collect();
        draws.sort();
        let near = |draw: Duration, goal: Duration| (draw.as_secs_f64() / goal.as_secs_f64() - 1.0).abs() < 0.1;
        assert!(near(draws[10_000], median), "median {:?}", draws[10_000]);
        assert!(near(draws[19_800], p99), "p99 {:?}", draws[19_800]);
    }

    #[test]
    fn equal_seeds_give_equal_draws() {
        let delay = Delay::Uniform {
            min: Duration::from_secs(1),
            max: Duration::from_secs(3),
        };
        let draws = |seed| {
            (0..50)
                .map(|_| ())
                .scan(Rng::with_seed(seed), |rng, ()| Some(delay.sample(rng)))
        };
        assert!(draws(7).eq(draws(7)));
        assert!(draws(7).all(|draw| (1.0..=3.0).contains(&draw.as_secs_f64())));
    }
}
