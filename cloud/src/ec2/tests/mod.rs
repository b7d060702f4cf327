//! The real SDK against canned answers of EC2 on a local socket.

mod failures;
mod wire;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_ec2::config::{Credentials, SharedCredentialsProvider};

use super::client::Ec2Client;
use super::error::{Action, Class};
use super::observe::CallReport;
use crate::canned::{Canned, Reply, Request};
use crate::config::{CloudConfig, ProxyUse};
use crate::http;

/// Action, class or success, attempts.
type Report = (Action, Option<Class>, u32);

struct Bench {
    server: Canned,
    client: Ec2Client,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Bench {
    async fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let server = Canned::start(answer).await;
        let (client, reports) = client(&server.url, Duration::from_secs(10), Some(credentials()));
        Self {
            server,
            client,
            reports,
        }
    }

    /// Answers every request with this body.
    async fn answering(body: impl Into<String>) -> Self {
        let body = body.into();
        Self::new(move |_| Reply::text(200, body.clone())).await
    }

    async fn refusing(status: u16, code: &str, message: &str) -> Self {
        let body = error_body(code, message);
        let headers = || vec![("x-amzn-requestid", "req-1".to_owned())];
        Self::new(move |_| Reply::Http(status, headers(), body.clone())).await
    }

    fn reports(&self) -> Vec<Report> {
        self.reports.lock().unwrap().clone()
    }
}

fn credentials() -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new("AKID", "secret", None, None, "test"))
}

fn client(
    url: &str,
    attempt_timeout: Duration,
    credentials: Option<SharedCredentialsProvider>,
) -> (Ec2Client, Arc<Mutex<Vec<Report>>>) {
    let config = CloudConfig {
        ec2_endpoint: Some(url.to_owned()),
        proxy: ProxyUse::Never,
        attempt_timeout,
        ..CloudConfig::default()
    };
    let mut sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-west-2"))
        .http_client(http::client(&config).unwrap());
    sdk.set_credentials_provider(credentials);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&reports);
    let observer = move |report: &CallReport<'_>| {
        kept.lock().unwrap().push((
            report.action,
            report.outcome.err().map(|error| error.class()),
            report.attempts,
        ));
    };
    (
        Ec2Client::from_sdk_config(&sdk.build(), &config, Arc::new(observer)),
        reports,
    )
}

fn error_body(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}\
         </Message></Error></Errors><RequestID>req-1</RequestID></Response>"
    )
}

fn answer_body(action: &str, content: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<{action}Response \
         xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>req-1</requestId>{content}</{action}Response>"
    )
}
