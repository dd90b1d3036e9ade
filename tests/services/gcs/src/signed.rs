// SPDX-License-Identifier: Apache-2.0
//! V4 signed URLs: <https://cloud.google.com/storage/docs/authentication/canonical-requests>.

use std::fmt::Write;

use axum::http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::auth::SKEW;
use crate::call::Call;
use crate::clock;
use crate::keys::{Account, hex};
use crate::refusal::Refusal;

const ALGORITHM: &str = "GOOG4-RSA-SHA256";
const SIGNATURE: &str = "X-Goog-Signature";
const WEEK: i64 = 7 * 24 * 3600;
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Whether a request comes by a signed URL.
pub(crate) fn is_signed(call: &Call) -> bool {
    call.has(SIGNATURE) || call.has("X-Goog-Algorithm")
}

/// Lets a request through if its URL was signed for it by the account, and is still good at `now`, in seconds since 1970.
pub(crate) fn verify(account: &Account, call: &Call, now: i64) -> Result<(), Refusal> {
    let parameter = |name: &'static str| {
        call.parameter(name)
            .ok_or_else(|| malformed("The request is missing a parameter of the signature.", name))
    };
    if parameter("X-Goog-Algorithm")? != ALGORITHM {
        return Err(malformed("The algorithm is not GOOG4-RSA-SHA256.", "X-Goog-Algorithm"));
    }
    let signature = bytes(parameter(SIGNATURE)?)
        .ok_or_else(|| malformed("The signature is not hexadecimal.", SIGNATURE))?;
    let date = parameter("X-Goog-Date")?;
    let begins = clock::parse_basic(date)
        .ok_or_else(|| malformed("The date is malformed.", "X-Goog-Date"))?;
    let life =
        parameter("X-Goog-Expires")?.parse().ok().filter(|seconds| (1..=WEEK).contains(seconds));
    let life: i64 = life.ok_or_else(|| {
        malformed("X-Goog-Expires must be from 1 to 604800 seconds.", "X-Goog-Expires")
    })?;
    let (email, scope) = parameter("X-Goog-Credential")?
        .split_once('/')
        .ok_or_else(|| malformed("The credential has no scope.", "X-Goog-Credential"))?;
    check_scope(scope, date)?;
    let canonical = canonical(call)?;
    let text =
        format!("{ALGORITHM}\n{date}\n{scope}\n{}", hex(&Sha256::digest(canonical.as_bytes())));
    let good = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &account.public)
        .verify(text.as_bytes(), &signature)
        .is_ok();
    if !good || email != account.email {
        let message = "Access denied. The request signature we calculated does not match the signature you provided. \
                       Check your Google secret key and signing method.";
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "SignatureDoesNotMatch",
            "forbidden",
            message,
        )
        .with("StringToSign", text)
        .with("CanonicalRequest", canonical));
    }
    if begins > now + SKEW {
        let message = "The difference between the request time and the server's time is too large.";
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "RequestTimeTooSkewed",
            "forbidden",
            message,
        ));
    }
    if now >= begins + life {
        let expired = clock::rfc3339((begins + life) * 1_000_000);
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            "ExpiredToken",
            "badRequest",
            "The provided token has expired.",
        )
        .with("Details", format!("Request signature expired at: {expired}")));
    }
    Ok(())
}

fn malformed(message: &str, parameter: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "MalformedSecurityHeader", "badRequest", message)
        .with("ParameterName", parameter)
}

/// The scope is `DATE/LOCATION/storage/goog4_request`, with the day that the URL begins on.
fn check_scope(scope: &str, date: &str) -> Result<(), Refusal> {
    let parts: Vec<&str> = scope.split('/').collect();
    match parts[..] {
        [day, _, "storage", "goog4_request"] if date.get(..8) == Some(day) => Ok(()),
        _ => Err(malformed("The credential's scope is malformed.", "X-Goog-Credential")),
    }
}

/// What was signed, of what is asked.
fn canonical(call: &Call) -> Result<String, Refusal> {
    let mut query: Vec<(String, String)> = call
        .query
        .iter()
        .filter(|(name, _)| name != SIGNATURE)
        .map(|(name, value)| (strict(name), strict(value)))
        .collect();
    query.sort();
    let query: Vec<String> =
        query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let names = call.parameter("X-Goog-SignedHeaders").unwrap_or_default();
    let signed: Vec<&str> = names.split(';').collect();
    if !signed.contains(&"host") {
        return Err(malformed("The header host must be signed.", "X-Goog-SignedHeaders"));
    }
    let mut headers = String::new();
    for name in &signed {
        let values: Vec<String> =
            call.headers.get_all(*name).iter().map(|value| folded(value.as_bytes())).collect();
        if values.is_empty() {
            return Err(malformed(
                "Header was included in signedheaders, but not in the request.",
                name,
            ));
        }
        let _ = writeln!(headers, "{name}:{}", values.join(","));
    }
    for name in call.headers.keys() {
        if name.as_str().starts_with("x-goog-") && !signed.contains(&name.as_str()) {
            return Err(malformed(
                "Header was included in the request, but not in signedheaders.",
                name.as_str(),
            ));
        }
    }
    let payload = match call.header("x-goog-content-sha256") {
        Some(hash) if signed.contains(&"x-goog-content-sha256") => hash,
        _ => "UNSIGNED-PAYLOAD",
    };
    Ok(format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{payload}",
        call.method,
        call.path,
        query.join("&")
    ))
}

fn strict(text: &str) -> String {
    utf8_percent_encode(text, STRICT).to_string()
}

/// A header's value without spaces around it, and with one where there are several.
fn folded(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
#[path = "signed_tests.rs"]
mod tests;
