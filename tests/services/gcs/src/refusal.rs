// SPDX-License-Identifier: Apache-2.0
//! Why a request is refused, as the XML and the JSON API say it.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::json;

/// A refusal.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// What the XML API calls it, such as `NoSuchKey`.
    code: &'static str,
    /// What the JSON API calls it, such as `notFound`.
    reason: &'static str,
    message: String,
    /// More elements of the XML API's answer.
    details: Vec<(&'static str, String)>,
}

impl Refusal {
    pub(crate) fn new(
        status: StatusCode,
        code: &'static str,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, code, reason, message: message.into(), details: Vec::new() }
    }

    pub(crate) fn with(mut self, element: &'static str, text: impl Into<String>) -> Self {
        self.details.push((element, text.into()));
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", "invalid", message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "AuthenticationRequired", "required", message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "AccessDenied", "forbidden", message)
    }

    pub(crate) fn no_bucket() -> Self {
        let message = "The specified bucket does not exist.";
        Self::new(StatusCode::NOT_FOUND, "NoSuchBucket", "notFound", message)
    }

    pub(crate) fn no_object(bucket: &str, name: &str) -> Self {
        let message = format!("The specified key does not exist. No such object: {bucket}/{name}");
        Self::new(StatusCode::NOT_FOUND, "NoSuchKey", "notFound", message)
    }

    pub(crate) fn no_upload() -> Self {
        let message = "The requested upload was not found.";
        Self::new(StatusCode::NOT_FOUND, "NoSuchUpload", "notFound", message)
    }

    pub(crate) fn condition() -> Self {
        let message = "At least one of the pre-conditions you specified did not hold.";
        Self::new(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "conditionNotMet", message)
    }

    pub(crate) fn not_modified() -> Self {
        Self::new(StatusCode::NOT_MODIFIED, "NotModified", "notModified", "")
    }

    pub(crate) fn method() -> Self {
        let message = "The specified method is not allowed against this resource.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "httpMethodNotAllowed",
            message,
        )
    }

    /// What this program does not play.
    pub(crate) fn not_played(what: &str) -> Self {
        let message = format!("gcs-fake does not play {what}.");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", "notImplemented", message)
    }

    /// The program's own failure, such as a full disk: whoever asks may try again.
    pub(crate) fn internal(during: &str, error: impl std::fmt::Display) -> Self {
        let message = format!("gcs-fake: {during}: {error}");
        eprintln!("{message}");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "backendError", message)
    }

    pub(crate) fn xml(&self) -> Response {
        let mut text = format!(
            "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message>",
            self.code,
            quick_xml::escape::escape(&self.message)
        );
        for (element, detail) in &self.details {
            text.push_str(&format!("<{element}>{}</{element}>", quick_xml::escape::escape(detail)));
        }
        text.push_str("</Error>");
        self.response("application/xml; charset=UTF-8", text)
    }

    pub(crate) fn json(&self) -> Response {
        let code = self.status.as_u16();
        let errors =
            json!([{ "domain": "global", "reason": self.reason, "message": self.message }]);
        let text = json!({ "error": { "code": code, "message": self.message, "errors": errors } });
        self.response("application/json; charset=UTF-8", text.to_string())
    }

    fn response(&self, content_type: &'static str, text: String) -> Response {
        // An answer that something is as it was has no body.
        let text = if self.status == StatusCode::NOT_MODIFIED { String::new() } else { text };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"https://accounts.google.com/\""),
            );
        }
        response
    }
}
