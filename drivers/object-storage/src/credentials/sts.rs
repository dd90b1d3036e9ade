// SPDX-License-Identifier: Apache-2.0
//! A web identity: the token in a file, exchanged for keys at the security token service.
//! Source: "AssumeRoleWithWebIdentity", AWS Security Token Service API Reference, version 2011-06-15.

use std::path::PathBuf;

use driver_api::{Error, ErrorKind, Result};
use http::HeaderMap;
use object_store::aws::AwsCredential;

use super::{
    exchange::{Desk, Said, Whom, token_in, told, until},
    lease::{Lease, Source},
};
use crate::{error::Refusal, wire::xml::Element};

pub(super) const WHOM: Whom = Whom { name: "the security token service", option: "`sts_endpoint`" };

/// Exchanges the token in a file.
#[derive(Debug)]
pub(super) struct WebIdentity {
    pub desk: Desk,
    pub endpoint: String,
    pub role_arn: String,
    pub token_file: PathBuf,
    pub session_name: String,
    /// Which option or variable names the file.
    pub option: &'static str,
}

impl Source for WebIdentity {
    type Credential = AwsCredential;

    async fn fetch(&self) -> Result<Lease<AwsCredential>> {
        let token = token_in(&self.token_file, self.option)?;
        // In the body: what is in the query gets into logs on the way.
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("DurationSeconds", "3600"),
            ("RoleArn", self.role_arn.as_str()),
            ("RoleSessionName", self.session_name.as_str()),
            ("WebIdentityToken", token.as_str()),
        ];
        let said = self.desk.form(&self.endpoint, &form).await?;
        if !said.status.is_success() {
            return Err(self.refusal(&said, &token).with("role_arn", &self.role_arn));
        }
        read(&said.text())
            .map_err(|error| self.desk.nonsense(&self.endpoint, said.status, error.message()))
    }
}

fn read(text: &str) -> Result<Lease<AwsCredential>> {
    let wrong = |why: &str| Error::new(ErrorKind::INTERNAL, why);
    let root = Element::parse_root(text, "AssumeRoleWithWebIdentityResponse")?;
    let keys = root
        .child("AssumeRoleWithWebIdentityResult")
        .and_then(|result| result.child("Credentials"))
        .ok_or_else(|| wrong("the answer has no credentials"))?;
    let lasts = until(keys.need("Expiration")?)
        .ok_or_else(|| wrong("the credentials do not say when they expire"))?;
    let credential = AwsCredential {
        key_id: keys.need("AccessKeyId")?.to_owned(),
        secret_key: keys.need("SecretAccessKey")?.to_owned(),
        token: Some(keys.need("SessionToken")?.to_owned()),
    };
    Ok(Lease { credential, lasts })
}

impl WebIdentity {
    fn refusal(&self, said: &Said, token: &str) -> Error {
        let refusal = Refusal::read(&HeaderMap::new(), &said.body);
        let why = told(&refusal.message, token);
        let file = self.token_file.display();
        let refused = |message: String, remedy: String| {
            self.desk.refused(&self.endpoint, message, remedy).with("token_file", file.to_string())
        };
        match refusal.code.as_str() {
            "ExpiredTokenException" | "ExpiredToken" => refused(
                format!("the token in {file} has expired: {why}"),
                "look at who renews the file: it is read anew whenever a token is needed".into(),
            ),
            "InvalidIdentityToken" | "IDPRejectedClaim" => refused(
                format!("the token in {file} is not accepted: {why}"),
                "compare the token's issuer and audience with the identity provider that the role's account knows".into(),
            ),
            "AccessDenied" => refused(
                format!("the role may not be assumed with this token: {why}"),
                format!(
                    "correct `role_arn`, or allow the token's issuer, audience and subject sts:AssumeRoleWithWebIdentity in the trust policy of {}",
                    self.role_arn
                ),
            ),
            "ValidationError" | "InvalidParameterValue" => refused(
                format!("the security token service refuses the request: {why}"),
                "correct `role_arn`, such as arn:aws:iam::123456789012:role/novastor".into(),
            ),
            // The service could not ask the identity provider: that passes.
            "IDPCommunicationError" => Error::new(
                ErrorKind::UNAVAILABLE,
                format!("the security token service cannot reach the identity provider: {why}"),
            )
            .remedy("look whether the issuer of the token can be reached from there"),
            "" => self.desk.nonsense(&self.endpoint, said.status, "and no document of its kind"),
            code => refused(
                format!("the security token service refuses the role: {} {code} {why}", said.status.as_u16()),
                "correct `role_arn`, `token_file` and `sts_endpoint`".into(),
            ),
        }
    }
}
