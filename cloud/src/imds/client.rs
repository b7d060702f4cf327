//! Questions to IMDS, one path each: token, keep-alive and repetitions are the AWS library's.
//!
//! A single question takes at most [`QUESTION_DEADLINE`]; 404 is an answer ("no such value"), not a failure.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use aws_config::imds::Client;
use aws_config::imds::client::EndpointMode;
use aws_config::imds::client::error::ImdsError as SdkImdsError;
use aws_config::provider_config::ProviderConfig;

use crate::config::{CloudConfig, ConfigError, ImdsFamily};
use crate::http;

/// IMDS answers within milliseconds; a second means that the packet is lost.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Of answers that ask for it (5xx, an expired token); silence is reported at once.
const ATTEMPTS: u32 = 3;
/// With waits between the attempts.
const QUESTION_DEADLINE: Duration = Duration::from_secs(8);
/// A whole set of questions.
pub(super) const SET_DEADLINE: Duration = Duration::from_secs(30);

/// A client of the instance metadata service. Cheap to clone; clones share token and connections.
#[derive(Clone)]
pub struct ImdsClient {
    client: Client,
}

impl fmt::Debug for ImdsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImdsClient").finish_non_exhaustive()
    }
}

/// Why IMDS gave no usable answer. Paths are relative to `/latest/meta-data/`.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// An HTTP error other than 404 on an optional value.
    #[error("imds {path}: HTTP status {status}")]
    Status {
        /// The question.
        path: String,
        /// The answer's status.
        status: u16,
    },
    /// No answer, or no token.
    #[error("imds {path}: no answer")]
    Unreachable {
        /// The question.
        path: String,
        /// What the client says.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer of the wrong form.
    #[error("imds {path}: malformed answer {text:?}")]
    Malformed {
        /// The question.
        path: String,
        /// The answer.
        text: String,
    },
    /// A set of questions took too long in all.
    #[error("imds: no complete answer within {0:?}")]
    Deadline(Duration),
}

impl ImdsError {
    /// Whether asking again soon may help: at boot IMDS can be a moment late.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => *status >= 500 || *status == 429,
            Self::Malformed { .. } | Self::Deadline(_) => false,
        }
    }
}

impl ImdsClient {
    /// Asks nothing yet.
    pub fn new(config: &CloudConfig) -> Result<Self, ConfigError> {
        let provider = ProviderConfig::without_region().with_http_client(http::direct_client());
        let mut builder = Client::builder()
            .configure(&provider)
            .max_attempts(ATTEMPTS)
            .connect_timeout(ATTEMPT_TIMEOUT)
            .read_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(QUESTION_DEADLINE)
            .endpoint_mode(match config.imds_family {
                ImdsFamily::V4 => EndpointMode::IpV4,
                ImdsFamily::V6 => EndpointMode::IpV6,
            });
        if let Some(url) = &config.imds_endpoint {
            builder = builder.endpoint(url).map_err(|_| ConfigError::Value {
                name: "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                text: url.clone(),
                reason: "must be a URL",
            })?;
        }
        Ok(Self {
            client: builder.build(),
        })
    }

    /// The region of the instance.
    pub async fn region(&self) -> Result<String, ImdsError> {
        self.get("placement/region").await
    }

    /// One value that must exist, without surrounding white space.
    pub(super) async fn get(&self, path: &str) -> Result<String, ImdsError> {
        self.find(path).await?.ok_or_else(|| ImdsError::Status {
            path: path.to_owned(),
            status: 404,
        })
    }

    /// One value; `None` when IMDS does not have it.
    pub(super) async fn find(&self, path: &str) -> Result<Option<String>, ImdsError> {
        self.find_below("meta-data", path).await
    }

    /// The same below another directory.
    pub(super) async fn find_below(&self, directory: &str, path: &str) -> Result<Option<String>, ImdsError> {
        let source: Box<dyn Error + Send + Sync> = match self.client.get(format!("/latest/{directory}/{path}")).await {
            Ok(text) => return Ok(Some(text.as_ref().trim().to_owned())),
            Err(SdkImdsError::ErrorResponse(response)) => match response.response().status().as_u16() {
                404 => return Ok(None),
                status => {
                    return Err(ImdsError::Status {
                        path: path.to_owned(),
                        status,
                    });
                }
            },
            Err(other) => other.into(),
        };
        Err(ImdsError::Unreachable {
            path: path.to_owned(),
            source,
        })
    }

    pub(super) async fn get_as<T: FromStr>(&self, path: &str) -> Result<T, ImdsError> {
        parse(path, &self.get(path).await?)
    }

    pub(super) async fn find_as<T: FromStr>(&self, path: &str) -> Result<Option<T>, ImdsError> {
        self.find(path).await?.map(|text| parse(path, &text)).transpose()
    }

    /// A list, one item per line; `None` when IMDS does not have it.
    pub(super) async fn find_list<T: FromStr>(&self, path: &str) -> Result<Option<Vec<T>>, ImdsError> {
        let Some(text) = self.find(path).await? else {
            return Ok(None);
        };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.map(|line| parse(path, line)).collect::<Result<_, _>>().map(Some)
    }

    /// A list that must exist.
    pub(super) async fn get_list<T: FromStr>(&self, path: &str) -> Result<Vec<T>, ImdsError> {
        let list = self.find_list(path).await?;
        list.ok_or_else(|| ImdsError::Status {
            path: path.to_owned(),
            status: 404,
        })
    }
}

fn parse<T: FromStr>(path: &str, text: &str) -> Result<T, ImdsError> {
    text.parse().map_err(|_| ImdsError::Malformed {
        path: path.to_owned(),
        text: text.to_owned(),
    })
}

/// Bounds a set of questions.
pub(super) async fn within<T>(
    deadline: Duration,
    questions: impl Future<Output = Result<T, ImdsError>>,
) -> Result<T, ImdsError> {
    tokio::time::timeout(deadline, questions)
        .await
        .unwrap_or(Err(ImdsError::Deadline(deadline)))
}
