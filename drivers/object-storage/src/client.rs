// SPDX-License-Identifier: Apache-2.0
//! The client of HTTP that all requests of a backend share, and that counts them.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use driver_api::{Error, Result};
use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
};

use crate::{config::Config, error::invalid, traffic::Traffic};

/// The name that servers see in their logs.
const AGENT: &str = concat!("novastor/", env!("CARGO_PKG_VERSION"));

/// What a request is for: goes with it, for the figures.
#[derive(Clone, Copy)]
pub(crate) struct Purpose(pub &'static str);

/// Services of the machine itself, which no proxy leads to.
const NEAR: &str = "169.254.169.254,169.254.170.2,169.254.170.23,fd00:ec2::254,fd00:ec2::23,metadata.google.internal,metadata";

/// A client that trusts, waits and goes through the proxy as the options say. It follows no redirects and repeats nothing.
pub(crate) fn client(config: &Config, traffic: &Arc<Traffic>) -> Result<HttpClient> {
    let proxy = match &config.proxy {
        Some(url) => {
            let mut proxy = reqwest::Proxy::all(url)
                .map_err(|error| refused("`proxy` cannot be used", &error))?
                .no_proxy(reqwest::NoProxy::from_string(NEAR));
            if let (Some(user), Some(password)) = (&config.proxy_user, &config.proxy_password) {
                proxy = proxy.basic_auth(user, password.trim());
            }
            Some(proxy)
        }
        None => None,
    };
    built(config, proxy, traffic)
}

/// A client for services of the machine itself, which no proxy leads to. What it does is not counted.
pub(crate) fn direct(config: &Config) -> Result<HttpClient> {
    built(config, None, &Arc::default())
}

fn built(
    config: &Config,
    proxy: Option<reqwest::Proxy>,
    traffic: &Arc<Traffic>,
) -> Result<HttpClient> {
    provide_crypto();
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .http1_only()
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(15))
        .connect_timeout(config.connect_timeout())
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(64);
    builder = match proxy {
        Some(proxy) => builder.proxy(proxy),
        None => builder.no_proxy(),
    };
    if let Some(pem) = trusted(config)? {
        let certificates = reqwest::Certificate::from_pem_bundle(&pem)
            .map_err(|error| refused("`ca_file` holds no certificates", &error))?;
        if certificates.is_empty() {
            return Err(
                invalid("`ca_file` holds no certificates").with("ca_file", shown_ca(config))
            );
        }
        builder = builder.tls_certs_merge(certificates);
    }
    let inner =
        builder.build().map_err(|error| refused("no client of HTTP can be made", &error))?;
    Ok(HttpClient::new(Counted { inner, traffic: Arc::clone(traffic) }))
}

fn refused(what: &str, error: &(dyn std::error::Error + 'static)) -> Error {
    invalid(what).caused_by(error)
}

fn shown_ca(config: &Config) -> &str {
    config.ca_file.as_deref().unwrap_or_default()
}

/// The certificates of `ca_file`.
pub(crate) fn trusted(config: &Config) -> Result<Option<Vec<u8>>> {
    let Some(path) = &config.ca_file else { return Ok(None) };
    fs::read(path).map(Some).map_err(|error| {
        Error::from_io("`ca_file` cannot be read", &error)
            .with("ca_file", path)
            .remedy("correct the path, or make the file readable for the host")
    })
}

/// Names the library that TLS is done with, once.
fn provide_crypto() {
    // Somebody else in this library may have named one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Counts what goes through a client.
#[derive(Debug)]
struct Counted {
    inner: reqwest::Client,
    traffic: Arc<Traffic>,
}

#[async_trait]
impl HttpService for Counted {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let purpose = match request.extensions().get::<Purpose>() {
            Some(purpose) => purpose.0,
            None => "other",
        };
        let sent = request.body().content_length() as u64;
        let since = Instant::now();
        let answer = HttpService::call(&self.inner, request).await;
        let status = answer.as_ref().ok().map(|answer| answer.status());
        self.traffic.count(purpose, status, since.elapsed(), sent);
        answer
    }
}

/// Gives object_store the client that is there already.
#[derive(Debug)]
pub(crate) struct Shared(pub HttpClient);

impl HttpConnector for Shared {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}
