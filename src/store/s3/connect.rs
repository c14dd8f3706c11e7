//! From the configuration to a client: address, region, credentials, certificates, patience.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::{BehaviorVersion, ConfigLoader, Region, profile};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    AppName, ConfigBag, Intercept, RequestChecksumCalculation, ResponseChecksumValidation, RuntimeComponents,
    SharedCredentialsProvider, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_sdk_s3::error::BoxError;
use aws_smithy_http_client::Connector;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};

use rand::RngExt;

use crate::config::{Checksum, S3Config, StoreConfig};
use crate::error::{Class, Failure};

/// How often one request is sent before its error is believed: by the SDK, but where a lost answer must be looked
/// after first.
pub(super) const ATTEMPTS: u32 = 5;
/// How long a server may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer to a request without a body may take to begin.
pub(super) const ANSWER: Duration = Duration::from_secs(60);
/// How long a transfer may stand still.
const STALLED: Duration = Duration::from_secs(30);
/// The slowest line that parts are sent over: slower ones need a smaller part-size.
const SLOWEST_BYTES_PER_SEC: u64 = 64 << 10;
/// What servers that know no regions are told.
const ANY_REGION: &str = "us-east-1";

/// How long to wait after the `attempt`th of them, at random: up to 1, 2, 4 seconds, as the SDK does.
pub(super) fn pause(attempt: u32) -> Duration {
    Duration::from_millis(rand::rng().random_range(0..=500_u64 << attempt.min(5)))
}

/// A client and the count of what it sends, attempts included.
pub(super) async fn connect(
    config: &StoreConfig,
    credentials: Option<SharedCredentialsProvider>,
) -> Result<(Client, Arc<AtomicU64>), Failure> {
    let s3 = &config.s3;
    let mut loader = loader(config)?;
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    let shared = loader.load().await;
    let has_endpoint = shared.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    let region = shared.region().cloned().or_else(|| has_endpoint.then(|| Region::from_static(ANY_REGION)));
    let region = region.ok_or_else(|| {
        Failure::new(Class::Usage, "the region of the bucket is not known")
            .meaning("nothing was attempted")
            .next("set region in [store], or AWS_REGION, or the region of the profile")
    })?;
    let requests = Arc::new(AtomicU64::new(0));
    let service = aws_sdk_s3::config::Builder::from(&shared)
        .region(region)
        .force_path_style(s3.path_style.unwrap_or(has_endpoint))
        .interceptor(Count(Arc::clone(&requests)))
        .build();
    Ok((Client::from_conf(service), requests))
}

fn loader(config: &StoreConfig) -> Result<ConfigLoader, Failure> {
    let S3Config { endpoint, region, profile: profile_name, checksum, part_bytes, .. } = &config.s3;
    let answer = ANSWER + Duration::from_secs(part_bytes / SLOWEST_BYTES_PER_SEC);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(config.ca_file.as_deref())?)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT).read_timeout(answer).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::enabled().grace_period(STALLED).build())
        .request_checksum_calculation(match checksum {
            Checksum::Crc32 | Checksum::Crc64Nvme => RequestChecksumCalculation::WhenSupported,
            Checksum::WhenRequired => RequestChecksumCalculation::WhenRequired,
        })
        // What is read is held against the feed's own hashes; ranges have no checksum of their own anyway.
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Ok(name) = AppName::new("pgslice") {
        loader = loader.app_name(name);
    }
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(profile) = profile_name {
        loader = loader.profile_name(profile);
    }
    match (region, endpoint) {
        (Some(region), _) => loader = loader.region(Region::new(region.clone())),
        // As usual, but for the machine's own metadata, which other servers than AWS have nothing to do with.
        (None, Some(_)) => {
            let of_profile = profile::region::Builder::default();
            let of_profile = match profile_name {
                Some(profile) => of_profile.profile_name(profile),
                None => of_profile,
            };
            let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(of_profile.build())
                .or_else(Region::from_static(ANY_REGION));
            loader = loader.region(region);
        }
        (None, None) => {}
    }
    Ok(loader)
}

fn http_client(ca_file: Option<&Path>) -> Result<SharedHttpClient, Failure> {
    let mut trusted = TrustStore::empty().with_native_roots(true);
    if let Some(path) = ca_file {
        let refused = |problem: String| {
            Failure::new(Class::Usage, format!("store.ca-file {}: {problem}", path.display()))
                .meaning("nothing was attempted")
                .next("name a file of PEM certificates that this user may read")
        };
        let pem = std::fs::read(path).map_err(|error| refused(error.to_string()))?;
        if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
            return Err(refused("holds no PEM certificate".to_owned()));
        }
        trusted = trusted.with_pem_certificate(pem);
    }
    let context = TlsContext::builder()
        .with_trust_store(trusted)
        .build()
        .map_err(|error| Failure::new(Class::Usage, format!("cannot set up TLS: {error}")))?;
    // The SDK's own default client takes no notice of HTTPS_PROXY; this way it does. What is asked by http:// never goes
    // through a proxy: the machine's own role is, and local servers are.
    let proxy = proxy()?;
    Ok(aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder();
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector
            .proxy_config(proxy.clone())
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(context.clone())
            .build()
    }))
}

/// The proxy for https:// that the environment names, but for the hosts of `NO_PROXY`.
fn proxy() -> Result<ProxyConfig, Failure> {
    let variable =
        |names: [&str; 2]| names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let Some(address) = variable(["HTTPS_PROXY", "https_proxy"]).or_else(|| variable(["ALL_PROXY", "all_proxy"]))
    else {
        return Ok(ProxyConfig::disabled());
    };
    // The address may hold a password, so it is not repeated.
    let proxy = ProxyConfig::https(address).map_err(|_| {
        Failure::new(Class::Usage, "HTTPS_PROXY is not the address of a proxy").meaning("nothing was attempted")
    })?;
    Ok(match variable(["NO_PROXY", "no_proxy"]) {
        Some(hosts) => proxy.no_proxy(hosts),
        None => proxy,
    })
}

/// Counts requests as they leave, those that the SDK repeats included.
#[derive(Debug)]
struct Count(Arc<AtomicU64>);

impl Intercept for Count {
    fn name(&self) -> &'static str {
        "pgslice counts requests"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
