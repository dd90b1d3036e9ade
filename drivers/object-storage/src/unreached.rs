// SPDX-License-Identifier: Apache-2.0
//! Requests that got no answer: what stood in the way.

use driver_api::{Error, ErrorKind, Retry};
use object_store::client::{HttpError, HttpErrorKind};

/// What to do when a proxy asks for a password.
pub(crate) const PROXY_PASSWORD: &str =
    "set `proxy_user` and `proxy_password` to what the proxy knows";

/// The error of a connection whose other end shows a certificate that is not trusted; `None` if it is another one.
pub(crate) fn untrusted(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let causes = causes(error);
    let told = causes.iter().rev().find(|cause| {
        let cause = cause.to_lowercase();
        cause.contains("certificate") || cause.contains("unknownissuer")
    })?;
    let message = format!("the server's certificate is not trusted: {told}");
    Some(
        Error::new(ErrorKind::UNAVAILABLE, message)
            .caused_by(error)
            .with_retry(Retry::PERMANENT)
            .remedy("set `ca_file` to the authority that signed it, or ask by the name that the certificate has"),
    )
}

/// The error of a request that got no answer. `proxied`: it went to a proxy, which is then who was not reached.
pub(crate) fn unanswered(error: &HttpError, connect_secs: u64, proxied: bool) -> Error {
    let causes = causes(error);
    let all = causes.join(": ");
    let of = |kind, message: String| Error::new(kind, message).caused_by(error);
    let lower = all.to_lowercase();
    if let Some(untrusted) = untrusted(error) {
        return untrusted;
    }
    if proxied && error.kind() == HttpErrorKind::Connect {
        return by_proxy(error, &lower, connect_secs);
    }
    if lower.contains("dns error") || lower.contains("failed to lookup") {
        return of(ErrorKind::UNAVAILABLE, "the endpoint's name is not known (DNS)".into())
            .remedy("correct `endpoint`, or look at the name service of this machine");
    }
    if lower.contains("connection refused") {
        return of(
            ErrorKind::UNAVAILABLE,
            "the connection was refused: nothing listens there".into(),
        )
        .remedy("start the server, or correct the port in `endpoint`");
    }
    match error.kind() {
        HttpErrorKind::Connect if lower.contains("timed out") => of(
            ErrorKind::UNAVAILABLE,
            format!("no connection within {connect_secs} s: nothing answers there"),
        )
        .remedy("look at the network and firewalls on the way, or correct `endpoint`"),
        HttpErrorKind::Connect => of(ErrorKind::UNAVAILABLE, format!("no connection: {all}"))
            .remedy("look whether `endpoint` and `proxy` are right, and whether the server runs"),
        HttpErrorKind::Timeout => {
            of(ErrorKind::TIMED_OUT, format!("the server did not answer in time: {all}"))
                .remedy("look at the server and the network, or raise `request_timeout_secs`")
        }
        _ => of(ErrorKind::UNAVAILABLE, format!("the connection ended before the answer: {all}"))
            .remedy("look at the server and the network"),
    }
}

fn by_proxy(error: &HttpError, causes: &str, connect_secs: u64) -> Error {
    let of = |kind, message: String| Error::new(kind, message).caused_by(error);
    if causes.contains("407") || causes.contains("authentication required") {
        return of(ErrorKind::UNAUTHENTICATED, "the proxy wants to know who asks".into())
            .remedy(PROXY_PASSWORD);
    }
    if causes.contains("tunnel") {
        return of(ErrorKind::UNAVAILABLE, "the proxy does not lead to the endpoint".into())
            .remedy("look at the proxy's rules and whether it reaches the endpoint, or correct `proxy` and `endpoint`");
    }
    let why = if causes.contains("dns error") || causes.contains("failed to lookup") {
        "its name is not known (DNS)".to_owned()
    } else if causes.contains("connection refused") {
        "nothing listens there".to_owned()
    } else if causes.contains("timed out") {
        format!("no connection within {connect_secs} s")
    } else {
        "there is no connection to it".to_owned()
    };
    of(ErrorKind::UNAVAILABLE, format!("the proxy cannot be reached: {why}"))
        .remedy("start the proxy, or correct `proxy`")
}

/// Whether the request cannot have reached the server.
pub(crate) fn never_sent(error: &HttpError) -> bool {
    error.kind() == HttpErrorKind::Connect
}

/// Whether it would end the same way again.
pub(crate) fn hopeless(error: &HttpError) -> bool {
    causes(error).join(" ").to_lowercase().contains("certificate")
}

fn causes(error: &dyn std::error::Error) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
        next = error.source();
    }
    texts
}
