// SPDX-License-Identifier: Apache-2.0

//! Requests: names in URLs, tokens, repetition bounded by a deadline, errors with their cause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::header::{ACCEPT, CONTENT_LENGTH, HeaderName};
use http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponseBody,
};
use object_store::{Certificate, PutPayload};
use tokio::sync::OnceCell;

use crate::auth::Tokens;
use crate::config::Config;
use crate::encode;
use crate::error::{Failure, FailureKind, classify};
use crate::info::Capabilities;
use crate::retry::{
    Backoff, chain, lasting, limited, plain_text, repeatable, retry_after, transaction, transport,
};

/// The longest answer that is read as a whole: a listing of 10,000 long names is below it.
const ANSWER_LIMIT: usize = 64 << 20;
/// The longest answer about a server's abilities, and the longest text of a refusal.
const PLAIN_LIMIT: usize = 8 << 20;
const REFUSAL_LIMIT: usize = 64 << 10;

/// What a request is about.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Account,
    Container(String),
    Object(String, String),
}

impl Target {
    fn path(&self) -> String {
        match self {
            Self::Account => String::new(),
            Self::Container(container) => format!("/{}", encode::name(container)),
            Self::Object(container, key) => {
                format!("/{}/{}", encode::name(container), encode::key(key))
            }
        }
    }

    /// The name in errors.
    fn label(&self) -> String {
        match self {
            Self::Account => "the account".to_owned(),
            Self::Container(container) => container.clone(),
            Self::Object(container, key) => format!("{container}/{key}"),
        }
    }

    fn key(&self) -> String {
        match self {
            Self::Account => String::new(),
            Self::Container(container) => container.clone(),
            Self::Object(_, key) => key.clone(),
        }
    }
}

/// One request, which may take several attempts.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) target: Target,
    query: Vec<(&'static str, String)>,
    pub(crate) headers: HeaderMap,
    payload: Option<PutPayload>,
    /// What its deadline is put off by, beside the time that its body takes.
    allowance: Duration,
    /// How long it may take in all, if not as configured.
    within: Option<Duration>,
    extensions: Extensions,
    broken: Option<String>,
}

impl Call {
    pub(crate) fn new(method: Method, target: Target) -> Self {
        Self {
            method,
            target,
            query: Vec::new(),
            headers: HeaderMap::new(),
            payload: None,
            allowance: Duration::ZERO,
            within: None,
            extensions: Extensions::new(),
            broken: None,
        }
    }

    pub(crate) fn object(method: Method, container: &str, key: &str) -> Self {
        Self::new(method, Target::Object(container.to_owned(), key.to_owned()))
    }

    pub(crate) fn container(method: Method, container: &str) -> Self {
        Self::new(method, Target::Container(container.to_owned()))
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// A header; a value which no header can have makes the request fail before it is sent.
    pub(crate) fn header(mut self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        let (name, value) = (name.as_ref(), value.as_ref());
        match (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes())) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => {
                self.broken = Some(format!(
                    "{name} cannot have this value: it has characters no header may have"
                ))
            }
        }
        self
    }

    pub(crate) fn headers(mut self, headers: HeaderMap) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(crate) fn payload(mut self, payload: impl Into<PutPayload>) -> Self {
        self.payload = Some(payload.into());
        self
    }

    pub(crate) fn allowance(mut self, allowance: Duration) -> Self {
        self.allowance = allowance;
        self
    }

    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.within = Some(time);
        self
    }

    pub(crate) fn extensions(mut self, extensions: Extensions) -> Self {
        self.extensions = extensions;
        self
    }

    pub(crate) fn label(&self) -> String {
        format!("{} of {}", self.method, self.target.label())
    }

    pub(crate) fn failure(&self, kind: FailureKind, cause: impl Into<String>) -> Failure {
        Failure::new(kind, self.label(), cause).path(self.target.key())
    }

    fn mutates(&self) -> bool {
        !self.method.is_safe()
    }
}

/// An answer with a status of success.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: HttpResponseBody,
    pub(crate) extensions: Extensions,
    /// Whether an attempt before may have been carried out.
    pub(crate) repeated: bool,
    label: String,
    silence: Duration,
    deadline: Instant,
    mutates: bool,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The whole body.
    ///
    /// # Errors
    /// A body that breaks off, is silent for too long, drips beyond the deadline, or never ends.
    pub(crate) async fn bytes(self) -> Result<Bytes, Failure> {
        let declared: Option<usize> =
            self.header("content-length").and_then(|text| text.parse().ok());
        let mut stream = self.body.bytes_stream();
        let mut all = BytesMut::new();
        let transaction = transaction(&self.headers);
        let failed = |kind, cause: String| {
            Failure::new(kind, self.label.clone(), cause)
                .answered(self.status, transaction.clone())
                .unknown(self.mutates)
                .remedy("repeat it; check the network between here and the server")
        };
        loop {
            let wait = self.silence.min(self.deadline.saturating_duration_since(Instant::now()));
            match tokio::time::timeout(wait, stream.next()).await {
                Ok(Some(Ok(bytes))) => all.extend_from_slice(&bytes),
                Ok(Some(Err(error))) => {
                    return Err(failed(
                        FailureKind::Connection,
                        format!("the answer broke off: {}", chain(&error)),
                    ));
                }
                Ok(None) if declared.is_some_and(|declared| declared != all.len()) => {
                    return Err(failed(
                        FailureKind::Connection,
                        "the answer is shorter than it says".into(),
                    ));
                }
                Ok(None) => return Ok(all.freeze()),
                Err(_) => {
                    return Err(failed(
                        FailureKind::TimedOut,
                        "the answer does not come to its end".into(),
                    ));
                }
            }
            if all.len() > ANSWER_LIMIT {
                return Err(failed(FailureKind::Rejected, "the answer never ends".into()));
            }
        }
    }
}

/// What all containers of one account share: connections, tokens, the server's abilities.
#[derive(Debug)]
pub(crate) struct Client {
    http: HttpClient,
    tokens: Tokens,
    pub(crate) config: Config,
    pub(crate) info: OnceCell<Arc<Capabilities>>,
    /// Whether the server honours `If-None-Match: *`, once that was tried out.
    pub(crate) creates: OnceCell<bool>,
}

impl Client {
    pub(crate) fn new(config: Config, connector: &dyn HttpConnector) -> object_store::Result<Self> {
        // Only the first provider of a process is taken; any is as good.
        let _another_was_there = rustls::crypto::ring::default_provider().install_default();
        // The timeouts of the HTTP library cover whole transfers; ours are for silence, and for a minimum rate.
        let mut options = config
            .client_options
            .clone()
            .with_timeout_disabled()
            .with_connect_timeout(config.connect_timeout);
        let urls = match &config.auth {
            crate::Auth::V1 { auth_url, .. } | crate::Auth::Keystone { auth_url, .. } => auth_url,
            crate::Auth::Static { storage_url, .. } => storage_url,
        };
        if urls.starts_with("http://") {
            options = options.with_allow_http(true);
        }
        if let Some(pem) = &config.ca_pem {
            for certificate in Certificate::from_pem_bundle(pem)? {
                options = options.with_root_certificate(certificate);
            }
        }
        Ok(Self {
            http: connector.connect(&options)?,
            tokens: Tokens::default(),
            config,
            info: OnceCell::new(),
            creates: OnceCell::new(),
        })
    }

    /// The account's storage URL, without a slash at its end.
    pub(crate) async fn storage_url(&self) -> Result<String, Failure> {
        Ok(self.tokens.get(&self.http, &self.config, None).await?.storage_url)
    }

    /// Sends `call` until it is answered with success or refused for good, or its deadline passes.
    ///
    /// # Errors
    /// A [`Failure`] whose outcome is unknown if an attempt to change something may have been carried out.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, Failure> {
        if let Some(cause) = &call.broken {
            return Err(call.failure(FailureKind::Rejected, cause.clone()));
        }
        let start = Instant::now();
        let retry = &self.config.retry;
        let transfer = self
            .config
            .transfer_time(call.payload.as_ref().map_or(0, |p| p.content_length()) as u64);
        let deadline =
            start + call.within.unwrap_or(retry.retry_timeout) + transfer + call.allowance;
        let patience = self.config.request_timeout + transfer;
        let (mut attempts, mut renewed, mut stale, mut unknown) = (0, false, None, false);
        let mut backoff = Backoff::new(retry);
        loop {
            attempts += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            let told =
                |failure: Failure| failure.after(attempts, start.elapsed()).path(call.target.key());
            let token =
                match tokio::time::timeout(left, self.tokens.get(&self.http, &self.config, stale))
                    .await
                {
                    Ok(Ok(token)) => token,
                    Ok(Err(failure)) if lasting(&failure) || attempts > retry.max_retries => {
                        return Err(told(failure).unknown(unknown));
                    }
                    Ok(Err(failure)) => {
                        backoff
                            .wait(deadline, None)
                            .await
                            .map_err(|()| told(failure).unknown(unknown))?;
                        continue;
                    }
                    Err(_) => {
                        return Err(told(
                            call.failure(FailureKind::TimedOut, "no token within the deadline"),
                        )
                        .unknown(unknown));
                    }
                };
            let request = self.request(call, &token.storage_url, token.value.reveal())?;
            let limit = patience.min(deadline.saturating_duration_since(Instant::now()));
            let (failure, after) =
                match tokio::time::timeout(limit, self.http.execute(request)).await {
                    Ok(Ok(answer)) => {
                        let (head, body) = answer.into_parts();
                        let answer = Answer {
                            status: head.status,
                            headers: head.headers,
                            body,
                            extensions: head.extensions,
                            repeated: unknown,
                            label: call.label(),
                            silence: self.config.request_timeout,
                            deadline,
                            mutates: call.mutates(),
                        };
                        if answer.status.is_success() {
                            return Ok(answer);
                        }
                        if answer.status == StatusCode::UNAUTHORIZED && !renewed {
                            (renewed, stale) = (true, Some(token.generation));
                            continue;
                        }
                        let after = retry_after(&answer.headers);
                        let status = answer.status;
                        let failure = refusal(call, answer).await;
                        if !repeatable(status) {
                            return Err(told(failure).unknown(unknown));
                        }
                        // A server may have carried out what it answers with an error, except where it says it never began.
                        unknown |= call.mutates() && status.is_server_error();
                        (failure, after)
                    }
                    Ok(Err(error)) => {
                        let failure = transport(&call.label(), &error);
                        unknown |= call.mutates() && error.kind() != HttpErrorKind::Connect;
                        if failure.kind() == FailureKind::Untrusted {
                            return Err(told(failure));
                        }
                        (failure, None)
                    }
                    Err(_) => {
                        unknown |= call.mutates();
                        let cause = format!("no answer within {:.1} s", limit.as_secs_f64());
                        (
                            call.failure(FailureKind::TimedOut, cause)
                                .remedy("check that the server is up and can be reached"),
                            None,
                        )
                    }
                };
            if attempts > retry.max_retries || backoff.wait(deadline, after).await.is_err() {
                return Err(told(failure).unknown(unknown));
            }
        }
    }

    fn request(&self, call: &Call, storage_url: &str, token: &str) -> Result<HttpRequest, Failure> {
        let mut url = format!("{storage_url}{}", call.target.path());
        for (index, (name, value)) in call.query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(name);
            if !value.is_empty() {
                url.push('=');
                url.push_str(&encode::name(value));
            }
        }
        let body = match &call.payload {
            Some(payload) => HttpRequestBody::from(payload.clone()),
            None => HttpRequestBody::empty(),
        };
        let length = call.payload.as_ref().map_or(0, |payload| payload.content_length());
        let mut request = http::Request::builder()
            .method(&call.method)
            .uri(url)
            .extension(())
            .header("X-Auth-Token", token)
            .body(body)
            .map_err(|error| {
                call.failure(FailureKind::Rejected, format!("its URL cannot be made: {error}"))
            })?;
        *request.extensions_mut() = call.extensions.clone();
        let headers = request.headers_mut();
        headers.extend(call.headers.clone());
        if call.payload.is_some() || call.method == Method::PUT || call.method == Method::POST {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        if !headers.contains_key(ACCEPT) {
            headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        }
        Ok(request)
    }

    /// Sends a GET until its body has come whole: an answer that breaks off is asked for again, a few times.
    pub(crate) async fn whole(&self, call: &Call) -> Result<(Bytes, Extensions), Failure> {
        for _ in 0..3 {
            let answer = self.send(call).await?;
            let extensions = answer.extensions.clone();
            if let Ok(body) = answer.bytes().await {
                return Ok((body, extensions));
            }
        }
        let answer = self.send(call).await?;
        let extensions = answer.extensions.clone();
        Ok((answer.bytes().await?, extensions))
    }

    /// GET of a URL of the server that needs no token, such as `/info`.
    pub(crate) async fn plain(&self, url: &str) -> Result<(StatusCode, Bytes), Failure> {
        let deadline = Instant::now() + self.config.retry.retry_timeout;
        let mut backoff = Backoff::new(&self.config.retry);
        loop {
            let failure = match self.plain_once(url).await {
                Ok((status, _)) if repeatable(status) => {
                    let (kind, remedy) = classify(status);
                    let failure = Failure::new(kind, format!("GET of {url}"), status.to_string());
                    failure.remedy(remedy).answered(status, None)
                }
                Ok(answer) => return Ok(answer),
                Err(failure) if lasting(&failure) => return Err(failure),
                Err(failure) => failure,
            };
            backoff.wait(deadline, None).await.map_err(|()| failure)?;
        }
    }

    async fn plain_once(&self, url: &str) -> Result<(StatusCode, Bytes), Failure> {
        let label = format!("GET of {url}");
        let request =
            http::Request::builder().uri(url).body(HttpRequestBody::empty()).map_err(|error| {
                Failure::new(FailureKind::Rejected, label.clone(), error.to_string())
            })?;
        let exchange = async {
            let answer = self.http.execute(request).await?;
            let status = answer.status();
            Ok((status, limited(answer.into_body(), PLAIN_LIMIT).await?))
        };
        match tokio::time::timeout(self.config.request_timeout, exchange).await {
            Ok(Ok((status, Some(body)))) => Ok((status, body)),
            Ok(Ok((_, None))) => {
                Err(Failure::new(FailureKind::Rejected, label, "the answer never ends"))
            }
            Ok(Err(error)) => {
                let error: HttpError = error;
                Err(transport(&label, &error))
            }
            Err(_) => Err(Failure::new(FailureKind::TimedOut, label, "the server is silent")),
        }
    }
}

/// The failure that an answer stands for.
async fn refusal(call: &Call, answer: Answer) -> Failure {
    let (status, transaction) = (answer.status, transaction(&answer.headers));
    let (kind, remedy) = classify(status);
    // The text of an error is worth a moment, no more; one without an end is none.
    let text = limited(answer.body, REFUSAL_LIMIT);
    let text = tokio::time::timeout(Duration::from_secs(5), text).await;
    let text = text.ok().and_then(Result::ok).flatten();
    let text = text.map(|bytes| plain_text(&String::from_utf8_lossy(&bytes)));
    let cause = match text {
        Some(text) if !text.is_empty() => format!("{status}: {text}"),
        _ => status.to_string(),
    };
    call.failure(kind, cause).remedy(remedy).answered(status, transaction)
}
