// SPDX-License-Identifier: Apache-2.0
//! Keys of S3 that the machine or container has been given by those who run it.
//! Sources: "Use the Instance Metadata Service" (EC2, version 2), "Task IAM role" (ECS), "EKS Pod Identity".

use std::{fmt, path::PathBuf};

use driver_api::{Error, Result};
use http::{Method, StatusCode};
use object_store::aws::AwsCredential;
use serde::Deserialize;
use url::{Host, Url};

use super::{
    exchange::{Desk, Whom, token_in, until},
    lease::{Lease, Source},
};
use crate::error::invalid;

/// AWS's metadata service.
pub(super) const METADATA: &str = "http://169.254.169.254";
/// Where containers of ECS ask.
const CONTAINERS: &str = "http://169.254.170.2";

pub(super) const MACHINE: Whom =
    Whom { name: "the machine's metadata service", option: "`instance_metadata`" };
pub(super) const CONTAINER: Whom = Whom {
    name: "the container's credential service",
    option: "AWS_CONTAINER_CREDENTIALS_FULL_URI or ..._RELATIVE_URI",
};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: String,
}

fn read(desk: &Desk, url: &str, body: &[u8]) -> Result<Lease<AwsCredential>> {
    let wrong = |why: &str| desk.nonsense(url, StatusCode::OK, why);
    // What serde would say could have a key in it.
    let keys: Keys = serde_json::from_slice(body)
        .map_err(|_| wrong("and no keys with AccessKeyId, SecretAccessKey and Expiration"))?;
    let lasts = until(&keys.expiration).ok_or_else(|| wrong("Expiration is no time"))?;
    let credential = AwsCredential {
        key_id: keys.access_key_id,
        secret_key: keys.secret_access_key,
        token: keys.token,
    };
    Ok(Lease { credential, lasts })
}

/// The machine's metadata service, version 2.
#[derive(Debug)]
pub(super) struct Machine {
    pub desk: Desk,
    pub base: String,
}

impl Source for Machine {
    type Credential = AwsCredential;

    async fn fetch(&self) -> Result<Lease<AwsCredential>> {
        let base = self.base.trim_end_matches('/');
        let url = format!("{base}/latest/api/token");
        let life = [("x-aws-ec2-metadata-token-ttl-seconds", "600")];
        let said = self.desk.ask(Method::PUT, &url, &life, String::new()).await?;
        if !said.status.is_success() {
            let message = format!("the machine's metadata service gives no token: {}", said.status);
            let remedy = "have version 2 of the service (IMDSv2) enabled for this machine, with a hop limit of 2 inside containers; or set another way by `credentials`";
            return Err(self.desk.refused(&url, message, remedy));
        }
        let token = said.text();
        let token = [("x-aws-ec2-metadata-token", token.trim())];
        let url = format!("{base}/latest/meta-data/iam/security-credentials/");
        let said = self.desk.ask(Method::GET, &url, &token, String::new()).await?;
        let text = said.text();
        let role = text.lines().next().unwrap_or_default().trim();
        if said.status == StatusCode::NOT_FOUND || said.status.is_success() && role.is_empty() {
            let remedy = "attach an instance profile with a role to this machine, or set another way by `credentials`";
            return Err(self.desk.refused(
                &url,
                "this machine has no role that would give it keys",
                remedy,
            ));
        }
        if !said.status.is_success() {
            return Err(self.desk.nonsense(&url, said.status, "asked for the machine's role"));
        }
        let url = format!("{url}{role}");
        let said = self.desk.ask(Method::GET, &url, &token, String::new()).await?;
        if !said.status.is_success() {
            let message = format!(
                "the machine's metadata service gives no keys of its role: {}",
                said.status
            );
            let remedy =
                "look at the role's trust policy: it must allow ec2.amazonaws.com to assume it";
            return Err(self.desk.refused(&url, message, remedy).with("role", role));
        }
        read(&self.desk, &url, &said.body)
    }
}

/// What a container shows when it asks.
pub(super) enum Pass {
    /// Nothing.
    None,
    /// A token.
    Token(String),
    /// The token in a file.
    File(PathBuf),
}

/// The service that gives containers their keys.
pub(super) struct Container {
    desk: Desk,
    url: String,
    pass: Pass,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Container").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Container {
    /// `relative` goes before `full`. A token in clear text to some other machine is refused.
    pub fn new(
        desk: Desk,
        relative: Option<String>,
        full: Option<String>,
        pass: Pass,
    ) -> Result<Self> {
        let text = match (relative, full) {
            (Some(path), _) => format!("{CONTAINERS}{path}"),
            (None, full) => full.unwrap_or_default(),
        };
        let url = Url::parse(&text).map_err(|error| {
            invalid(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI is no URL: {error}"))
        })?;
        let near = match url.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback() || ip.is_link_local(),
            Some(Host::Ipv6(ip)) => ip.is_loopback() || ip.is_unique_local(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if url.scheme() != "https" && !near {
            return Err(invalid("AWS_CONTAINER_CREDENTIALS_FULL_URI would have keys sent unencrypted over the network")
                .with("url", format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default()))
                .remedy("use https, or an address of this machine"));
        }
        Ok(Self { desk, url: text, pass })
    }
}

impl Source for Container {
    type Credential = AwsCredential;

    async fn fetch(&self) -> Result<Lease<AwsCredential>> {
        let token = match &self.pass {
            Pass::None => String::new(),
            Pass::Token(token) => token.clone(),
            Pass::File(path) => token_in(path, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?,
        };
        let headers = [("authorization", token.as_str())];
        let headers = if token.is_empty() { &[] } else { headers.as_slice() };
        let said = self.desk.ask(Method::GET, &self.url, headers, String::new()).await?;
        if !said.status.is_success() {
            let message =
                format!("the container's credential service gives no keys: {}", said.status);
            let error: Error = self.desk.refused(&self.url, message, "look at the role of the task or pod, and at AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
            return Err(error);
        }
        read(&self.desk, &self.url, &said.body)
    }
}
