//! The HTTP client under the SDK: which requests go straight, which need TLS or a proxy.
//!
//! Link-local and loopback services (IMDS, the pod identity agent, a local EC2) are reached directly over plain HTTP:
//! a node-wide `HTTP_PROXY` must not see credentials. TLS, which loads all certificate authorities, is set up at the
//! first request that needs it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::{CloudConfig, ConfigError, ProxyUse};

/// Plain HTTP without a proxy, for IMDS.
pub(crate) fn direct_client() -> SharedHttpClient {
    Builder::new().build_http()
}

/// Everything else. Reads and checks the CA bundle, but sets up no TLS yet.
pub(crate) fn client(config: &CloudConfig) -> Result<SharedHttpClient, ConfigError> {
    let bundle = config.ca_bundle.as_deref().map(read_bundle).transpose()?;
    let routes = Routes {
        direct: direct_client(),
        routed: OnceLock::new(),
        proxy: config.proxy,
        bundle,
    };
    Ok(SharedHttpClient::new(Transport(Arc::new(routes))))
}

#[derive(Debug)]
struct Transport(Arc<Routes>);

#[derive(Debug)]
struct Routes {
    direct: SharedHttpClient,
    routed: OnceLock<SharedHttpClient>,
    proxy: ProxyUse,
    bundle: Option<Vec<u8>>,
}

impl Routes {
    fn client_for(&self, uri: &str) -> &SharedHttpClient {
        if goes_direct(uri, self.proxy) {
            &self.direct
        } else {
            self.routed
                .get_or_init(|| routed_client(self.proxy, self.bundle.as_deref()))
        }
    }
}

impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let routes = Arc::clone(&self.0);
        SharedHttpConnector::new(Route {
            routes,
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

/// The connector of one attempt; the clients behind it keep their connections.
#[derive(Debug)]
struct Route {
    routes: Arc<Routes>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for Route {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.routes.client_for(request.uri());
        client.http_connector(&self.settings, &self.components).call(request)
    }
}

fn goes_direct(uri: &str, proxy: ProxyUse) -> bool {
    let Ok(uri) = uri.parse::<http::Uri>() else {
        return false;
    };
    uri.scheme_str() == Some("http") && (proxy == ProxyUse::Never || uri.host().is_some_and(is_local))
}

fn is_local(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        // fd00:ec2::/32 holds AWS's services of the node: IMDS and the pod identity agent.
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0xec2],
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn routed_client(proxy: ProxyUse, bundle: Option<&[u8]>) -> SharedHttpClient {
    // The bundle stands in for the system's authorities, as in the AWS CLI.
    let store = match bundle {
        Some(pem) => TrustStore::empty().with_pem_certificate(pem),
        None => TrustStore::empty().with_native_roots(true),
    };
    let context = TlsContext::builder()
        .with_trust_store(store)
        .build()
        .expect("a trust store is a complete context");
    let proxy = match proxy {
        ProxyUse::Environment => ProxyConfig::from_env(),
        ProxyUse::Never => ProxyConfig::disabled(),
    };
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder = Connector::builder().proxy_config(proxy.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        builder
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(context.clone())
            .build()
    })
}

/// The TLS library panics on a bad certificate, so each is tried here.
fn read_bundle(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let pem = std::fs::read(path).map_err(|source| ConfigError::ReadCaBundle {
        path: path.to_owned(),
        source,
    })?;
    check_bundle(&pem).map_err(|reason| ConfigError::ParseCaBundle {
        path: path.to_owned(),
        reason,
    })?;
    Ok(pem)
}

fn check_bundle(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots
            .add(certificate.map_err(|error| error.to_string())?)
            .map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        Err("no certificate in it".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_local_services_are_reached_without_proxy_or_tls() {
        let direct = |uri| goes_direct(uri, ProxyUse::Environment);
        for uri in [
            "http://169.254.169.254/latest",
            "http://[fd00:ec2::254]/x",
            "http://127.0.0.1:8080/",
            "http://localhost:1/",
            "http://[::1]:8/",
        ] {
            assert!(direct(uri), "{uri}");
        }
        for uri in [
            "https://127.0.0.1/",
            "http://ec2.example/",
            "http://10.0.0.5:80/",
            "https://ec2.us-west-2.amazonaws.com/",
        ] {
            assert!(!direct(uri), "{uri}");
        }
        assert!(goes_direct("http://10.0.0.5:80/", ProxyUse::Never));
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused_before_tls_needs_it() {
        assert!(check_bundle(b"").is_err());
        assert!(check_bundle(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
        assert!(check_bundle(b"-----BEGIN CERTIFICATE-----\n!\n").is_err());
        let config = CloudConfig {
            ca_bundle: Some("/nonexistent/ca.pem".into()),
            ..CloudConfig::default()
        };
        assert!(client(&config).unwrap_err().to_string().contains("/nonexistent/ca.pem"));
    }
}
