// SPDX-License-Identifier: Apache-2.0
//! The backend's options: parsed and checked here, declared in `options.rs`.

use std::{fmt, time::Duration};

use driver_api::{Error, Result};
use serde::Deserialize;
use url::Url;

pub use crate::choices::{
    Checksum, ConditionalPut, Credentials, Encryption, Kind, Style, SwiftAuth,
};
use crate::{credentials::EMULATOR_KEY, error::invalid};

/// The options of `[backends.NAME]` with `driver = "object-storage"`; their meanings are told in `options.rs`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub kind: Kind,
    pub endpoint: Option<String>,
    pub ca_file: Option<String>,
    pub proxy: Option<String>,
    pub proxy_user: Option<String>,
    pub proxy_password: Option<String>,
    #[serde(default = "five")]
    pub connect_timeout_secs: u64,
    #[serde(default = "thirty")]
    pub request_timeout_secs: u64,
    #[serde(default = "sixty")]
    pub operation_timeout_secs: u64,
    pub probe_bucket: Option<String>,
    pub region: Option<String>,
    pub project: Option<String>,
    pub storage_class: Option<String>,
    /// Bytes; see [`Config::copy_at_once`].
    pub copy_at_once: Option<u64>,

    pub style: Option<Style>,
    pub access_key: Option<String>,
    pub secret_key: Option<String>,
    pub session_token: Option<String>,
    pub credentials: Option<Credentials>,
    pub profile: Option<String>,
    pub profile_file: Option<String>,
    pub instance_metadata: Option<String>,
    pub role_arn: Option<String>,
    pub token_file: Option<String>,
    pub sts_endpoint: Option<String>,
    pub server_side_encryption: Option<Encryption>,
    pub kms_key_id: Option<String>,
    pub sse_customer_key: Option<String>,
    pub conditional_put: Option<ConditionalPut>,
    pub checksum: Option<Checksum>,

    pub account: Option<String>,
    pub account_key: Option<String>,
    pub sas: Option<String>,
    pub client_id: Option<String>,
    pub client_secret: Option<String>,
    pub tenant_id: Option<String>,
    pub authority_host: Option<String>,
    #[serde(default)]
    pub emulator: bool,

    pub service_account: Option<String>,
    pub service_account_json: Option<String>,
    pub location: Option<String>,

    pub auth: Option<SwiftAuth>,
    pub auth_url: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    pub user_domain: Option<String>,
    pub project_domain: Option<String>,
    pub application_credential_id: Option<String>,
    pub application_credential_secret: Option<String>,
    pub interface: Option<String>,
    pub temp_url_key: Option<String>,
}

impl fmt::Debug for Config {
    /// Never prints a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("kind", &self.kind)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// The least `copy_at_once`: S3's parts, but for the last one, are no smaller.
const LEAST_COPY: u64 = 5 << 20;
/// The most bytes that S3 copies by one request.
const MOST_COPY: u64 = 5 << 30;
/// What GCS copies by one request between all locations and storage classes before it gives up.
const REWRITTEN: u64 = 256 << 20;

fn five() -> u64 {
    5
}

fn thirty() -> u64 {
    30
}

fn sixty() -> u64 {
    60
}

impl Config {
    /// Refuses values that parse but make no sense.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [
            ("connect_timeout_secs", self.connect_timeout_secs),
            ("request_timeout_secs", self.request_timeout_secs),
            ("operation_timeout_secs", self.operation_timeout_secs),
        ] {
            if !(1..=86_400).contains(&value) {
                return Err(invalid(format!("`{key}` must be 1 to 86400")).with(key, value));
            }
        }
        for (key, value) in [
            ("endpoint", &self.endpoint),
            ("instance_metadata", &self.instance_metadata),
            ("sts_endpoint", &self.sts_endpoint),
            ("authority_host", &self.authority_host),
            ("auth_url", &self.auth_url),
            ("proxy", &self.proxy),
        ] {
            if let Some(value) = value {
                check_url(key, value)?;
            }
        }
        if self.proxy_user.is_some() != self.proxy_password.is_some()
            || self.proxy_user.is_some() && self.proxy.is_none()
        {
            return Err(invalid("`proxy_user` and `proxy_password` go together, and with `proxy`")
                .remedy("set all three, or `proxy` alone"));
        }
        if let Some(bytes) = self.copy_at_once
            && !(LEAST_COPY..=MOST_COPY).contains(&bytes)
        {
            let why = format!("`copy_at_once` must be {LEAST_COPY} to {MOST_COPY} bytes");
            return Err(invalid(why).with("copy_at_once", bytes));
        }
        self.refuse_foreign()?;
        match self.kind {
            Kind::S3 => self.check_s3(),
            Kind::Azure => self.check_azure(),
            Kind::Gcs => self.check_gcs(),
            Kind::Swift => self.check_swift(),
        }
    }

    /// An option of another kind would do nothing: it is refused.
    fn refuse_foreign(&self) -> Result<()> {
        for kind in [Kind::S3, Kind::Azure, Kind::Gcs, Kind::Swift] {
            for &key in kind.own_options() {
                if kind != self.kind && self.has(key) {
                    let message = format!(
                        "`{key}` is for kind = \"{}\", this backend is of kind = \"{}\"",
                        kind.name(),
                        self.kind.name()
                    );
                    return Err(invalid(message)
                        .remedy(format!("remove `{key}` from the backend, or correct `kind`")));
                }
            }
        }
        if self.emulator && self.kind != Kind::Azure {
            return Err(invalid("`emulator` is for kind = \"azure\""));
        }
        if self.copy_at_once.is_some() && !matches!(self.kind, Kind::S3 | Kind::Gcs) {
            return Err(invalid("`copy_at_once` is for kind = \"s3\" and kind = \"gcs\""));
        }
        if self.project.is_some() && !matches!(self.kind, Kind::Gcs | Kind::Swift) {
            return Err(invalid("`project` is for kind = \"gcs\" and kind = \"swift\""));
        }
        for key in ["credentials", "instance_metadata", "token_file"] {
            if self.has(key) && !matches!(self.kind, Kind::S3 | Kind::Azure) {
                let message = format!("`{key}` is for kind = \"s3\" and kind = \"azure\"");
                return Err(invalid(message).remedy(format!("remove `{key}`")));
            }
        }
        if self.region.is_some() && !matches!(self.kind, Kind::S3 | Kind::Swift) {
            return Err(invalid("`region` is for kind = \"s3\" and kind = \"swift\""));
        }
        Ok(())
    }

    fn has(&self, key: &str) -> bool {
        let is = Option::<String>::is_some;
        match key {
            "style" => self.style.is_some(),
            "access_key" => is(&self.access_key),
            "secret_key" => is(&self.secret_key),
            "session_token" => is(&self.session_token),
            "credentials" => self.credentials.is_some(),
            "profile" => is(&self.profile),
            "profile_file" => is(&self.profile_file),
            "instance_metadata" => is(&self.instance_metadata),
            "role_arn" => is(&self.role_arn),
            "token_file" => is(&self.token_file),
            "sts_endpoint" => is(&self.sts_endpoint),
            "server_side_encryption" => self.server_side_encryption.is_some(),
            "kms_key_id" => is(&self.kms_key_id),
            "sse_customer_key" => is(&self.sse_customer_key),
            "conditional_put" => self.conditional_put.is_some(),
            "checksum" => self.checksum.is_some(),
            "account" => is(&self.account),
            "account_key" => is(&self.account_key),
            "sas" => is(&self.sas),
            "client_id" => is(&self.client_id),
            "client_secret" => is(&self.client_secret),
            "tenant_id" => is(&self.tenant_id),
            "authority_host" => is(&self.authority_host),
            "service_account" => is(&self.service_account),
            "service_account_json" => is(&self.service_account_json),
            "location" => is(&self.location),
            "auth" => self.auth.is_some(),
            "auth_url" => is(&self.auth_url),
            "user" => is(&self.user),
            "password" => is(&self.password),
            "user_domain" => is(&self.user_domain),
            "project_domain" => is(&self.project_domain),
            "application_credential_id" => is(&self.application_credential_id),
            "application_credential_secret" => is(&self.application_credential_secret),
            "interface" => is(&self.interface),
            "temp_url_key" => is(&self.temp_url_key),
            _ => false,
        }
    }

    fn need(&self, key: &str, why: &str) -> Result<()> {
        if self.has(key) { Ok(()) } else { Err(missing(key, why)) }
    }

    /// Where the credentials come from: what `credentials` says, or what the other options imply.
    pub fn credentials(&self) -> Credentials {
        self.credentials.unwrap_or(if self.access_key.is_some() || self.secret_key.is_some() {
            Credentials::Keys
        } else if self.profile.is_some() || self.profile_file.is_some() {
            Credentials::Profile
        } else if self.token_file.is_some() || self.role_arn.is_some() {
            Credentials::WebIdentity
        } else {
            Credentials::Environment
        })
    }

    fn check_s3(&self) -> Result<()> {
        match self.credentials() {
            Credentials::Keys => {
                self.need("access_key", "credentials = \"keys\" needs it")?;
                self.need("secret_key", "credentials = \"keys\" needs it")?;
            }
            Credentials::WebIdentity => {
                self.need("role_arn", "credentials = \"web_identity\" needs it")?;
                self.need("token_file", "credentials = \"web_identity\" needs it")?;
            }
            _ if self.access_key.is_some() || self.secret_key.is_some() => {
                return Err(invalid(
                    "`access_key` and `secret_key` go with credentials = \"keys\"",
                )
                .remedy("remove them, or `credentials`"));
            }
            _ => {}
        }
        if self.style == Some(Style::Virtual) && self.endpoint.is_some() {
            let url = check_url("endpoint", self.endpoint.as_deref().unwrap_or_default())?;
            if !matches!(url.host(), Some(url::Host::Domain(_))) {
                return Err(invalid(
                    "style = \"virtual\" puts the bucket before the host's name, and `endpoint` has an address",
                )
                .remedy("set style = \"path\", or give the endpoint by name"));
            }
        }
        if self.kms_key_id.is_some()
            && !matches!(self.server_side_encryption, Some(Encryption::Kms | Encryption::KmsDsse))
        {
            return Err(invalid("`kms_key_id` goes with server_side_encryption = \"aws:kms\""));
        }
        if let Some(key) = &self.sse_customer_key {
            if self.server_side_encryption.is_some() {
                return Err(invalid(
                    "`sse_customer_key` and `server_side_encryption` exclude each other",
                ));
            }
            crate::account::customer_key(key)?;
        }
        Ok(())
    }

    fn check_azure(&self) -> Result<()> {
        if !self.emulator {
            self.need("account", "kind = \"azure\" needs it")?;
        }
        let instance = self.credentials == Some(Credentials::Instance);
        if !instance && !matches!(self.credentials, None | Some(Credentials::WebIdentity)) {
            return Err(invalid("`credentials` of kind = \"azure\" is instance or web_identity")
                .remedy("remove it: a key, signature or secret is used where it is set"));
        }
        let file = self.token_file.is_some() || self.credentials == Some(Credentials::WebIdentity);
        let (key, sas) = (self.account_key.is_some(), self.sas.is_some());
        match [key, sas, self.client_secret.is_some(), file, instance] {
            [false, false, false, false, false] if self.emulator => Ok(()),
            [false, false, false, false, false] => Err(invalid("there are no credentials").remedy(
                "set `account_key`, or `sas`, or `client_id` and `tenant_id` with `client_secret` or `token_file`, or credentials = \"instance\"",
            )),
            [false, false, true, false, false] => {
                self.need("client_id", "`client_secret` needs it")?;
                self.need("tenant_id", "`client_secret` needs it")
            }
            [false, false, false, true, false] => {
                self.need("token_file", "credentials = \"web_identity\" needs it")?;
                self.need("client_id", "`token_file` needs it")?;
                self.need("tenant_id", "`token_file` needs it")
            }
            ways if ways.iter().filter(|&&way| way).count() == 1 => Ok(()),
            _ => Err(invalid("`account_key`, `sas`, `client_secret`, `token_file` and `credentials` exclude each other")
                .remedy("keep one of them")),
        }
    }

    /// The account's key: of the options, or Azurite's if there is no other way to ask it. `None`: something else proves who asks.
    pub(crate) fn azure_key(&self) -> Option<&str> {
        let other =
            [&self.sas, &self.client_secret, &self.token_file].iter().any(|way| way.is_some());
        match &self.account_key {
            Some(key) => Some(key),
            None if self.emulator && !other && self.credentials.is_none() => Some(EMULATOR_KEY),
            None => None,
        }
    }

    fn check_gcs(&self) -> Result<()> {
        if self.service_account.is_some() && self.service_account_json.is_some() {
            return Err(invalid("`service_account` and `service_account_json` exclude each other")
                .remedy("keep one of them"));
        }
        Ok(())
    }

    fn check_swift(&self) -> Result<()> {
        self.need("auth_url", "kind = \"swift\" needs it")?;
        match self.auth.unwrap_or(SwiftAuth::V3) {
            SwiftAuth::V1 => {
                self.need("user", "auth = \"v1\" needs it")?;
                self.need("password", "auth = \"v1\" needs it")
            }
            SwiftAuth::V3 if self.application_credential_id.is_some() => {
                self.need("application_credential_secret", "`application_credential_id` needs it")
            }
            SwiftAuth::V3 => {
                self.need("user", "auth = \"v3\" needs it, or `application_credential_id`")?;
                self.need("password", "auth = \"v3\" needs it")?;
                match self.project {
                    Some(_) => Ok(()),
                    None => Err(missing("project", "auth = \"v3\" needs it")),
                }
            }
        }
    }

    /// How long making a connection may take.
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_timeout_secs)
    }

    /// How long the server may be silent while something is asked of it.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_secs)
    }

    /// The largest object, in bytes, that is copied by one request; larger ones are copied piece by piece.
    pub fn copy_at_once(&self) -> u64 {
        self.copy_at_once.unwrap_or(match self.kind {
            Kind::Gcs => REWRITTEN,
            _ => MOST_COPY,
        })
    }

    /// How long an operation may take, with all that is repeated.
    pub fn operation_timeout(&self) -> Duration {
        Duration::from_secs(self.operation_timeout_secs)
    }
}

fn missing(key: &str, why: &str) -> Error {
    invalid(format!("`{key}` is missing: {why}")).remedy(format!("set `{key}`"))
}

/// The URL in the option `key`.
pub(crate) fn check_url(key: &str, text: &str) -> Result<Url> {
    // A password may stand before the host, and no URL is needed for that.
    let shown = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        (None, Some((_, host))) => format!("…@{host}"),
        _ => text.to_owned(),
    };
    let wrong = |why: &str| {
        invalid(format!("`{key}` is no URL: {why}"))
            .with(key, &shown)
            .remedy("write it as https://host or http://host:port")
    };
    let url = Url::parse(text).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https" | "socks5" | "socks5h")
        || (key != "proxy" && url.scheme().starts_with("socks"))
    {
        return Err(wrong("it begins with neither http:// nor https://"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let remedy = match key {
            "proxy" => "set `proxy_user` and `proxy_password`",
            _ => "give credentials by their own options",
        };
        return Err(invalid(format!("`{key}` has a user or password in it")).remedy(remedy));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a query or fragment"));
    }
    Ok(url)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
