//! The EC2 client and its set-up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::config::timeout::TimeoutConfig;
use aws_sdk_ec2::config::{Builder, StalledStreamProtectionConfig};

use super::observe::CallObserver;
use crate::config::{CloudConfig, ConfigError};
use crate::http;
use crate::imds::client::ImdsClient;

/// The SDK's own default; three seconds of TCP retransmission.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3_100);
/// A read with all its attempts and the wait between them.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const READ_ATTEMPTS: u32 = 2;
/// What a mutation may spend before its one attempt: credentials may have to be fetched.
const MUTATION_PREPARATION: Duration = Duration::from_secs(5);

/// EC2 through the AWS SDK. Cheap to clone; clones share connections and credentials.
#[derive(Clone)]
pub struct Ec2Client {
    pub(super) reads: Client,
    pub(super) mutations: Client,
    pub(super) observer: Arc<dyn CallObserver>,
}

impl fmt::Debug for Ec2Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ec2Client").finish_non_exhaustive()
    }
}

impl Ec2Client {
    /// Makes no EC2 call. Asks IMDS for the region when the configuration has none; credentials are fetched by the
    /// first call, by the standard chain of the AWS SDKs.
    pub async fn connect(
        config: &CloudConfig,
        imds: &ImdsClient,
        observer: Arc<dyn CallObserver>,
    ) -> Result<Self, ConfigError> {
        let region = match &config.region {
            Some(region) => region.clone(),
            None => imds.region().await.map_err(ConfigError::Region)?,
        };
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region))
            .http_client(http::client(config)?)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Ok(name) = AppName::new(config.app_name.clone()) {
            loader = loader.app_name(name);
        }
        Ok(Self::from_sdk_config(&loader.load().await, config, observer))
    }

    pub(super) fn from_sdk_config(sdk: &SdkConfig, config: &CloudConfig, observer: Arc<dyn CallObserver>) -> Self {
        let client = |attempts, total| {
            let timeouts = TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(config.attempt_timeout)
                .operation_timeout(total)
                .build();
            let builder = Builder::from(sdk)
                .retry_config(RetryConfig::standard().with_max_attempts(attempts))
                .timeout_config(timeouts);
            Client::from_conf(match &config.ec2_endpoint {
                Some(url) => builder.endpoint_url(url).build(),
                None => builder.build(),
            })
        };
        // One attempt alone must fit, whatever HTTP_TIMEOUT says.
        let reads = client(READ_ATTEMPTS, READ_TIMEOUT.max(config.attempt_timeout * READ_ATTEMPTS));
        let mutations = client(1, config.attempt_timeout + MUTATION_PREPARATION);
        Self {
            reads,
            mutations,
            observer,
        }
    }
}
