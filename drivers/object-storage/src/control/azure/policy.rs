// SPDX-License-Identifier: Apache-2.0
//! A container's policy as JSON: `{"public_access": "none", "policies": [{"id", "start", "expiry", "permission"}]}`.
//!
//! Azure has no such JSON; it keeps the first in a header and the others, its stored access policies, in XML.

use std::time::Instant;

use driver_api::Result;
use http::Method;
use serde::{Deserialize, Serialize};

use crate::{
    account::Account,
    error::invalid,
    wire::{
        AnswerExt, AskExt, about, ask, at_bucket, nonsense, put_header,
        xml::{Writer, check_text},
    },
};

/// The most stored access policies of a container.
const MAX_POLICIES: usize = 5;

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default = "none")]
    public_access: String,
    #[serde(default)]
    policies: Vec<Stored>,
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Stored {
    id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    start: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    expiry: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    permission: String,
}

fn none() -> String {
    "none".to_owned()
}

const QUERY: [(&str, Option<&str>); 2] = [("restype", Some("container")), ("comp", Some("acl"))];

/// The container's policy; empty: nobody but the account may do anything, as with a new one.
pub(crate) async fn get(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let request = ask("show policy", Method::GET, at_bucket(bucket, &QUERY));
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("SignedIdentifiers", &request)?;
    let mut policies = Vec::new();
    for stored in root.all("SignedIdentifier") {
        let access = stored.child("AccessPolicy");
        let text = |name| access.map_or("", |access| access.text(name)).to_owned();
        policies.push(Stored {
            id: stored.need("Id")?.to_owned(),
            start: text("Start"),
            expiry: text("Expiry"),
            permission: text("Permission"),
        });
    }
    let public_access = match reply.header("x-ms-blob-public-access") {
        "" => none(),
        level => level.to_owned(),
    };
    if policies.is_empty() && public_access == "none" {
        return Ok(String::new());
    }
    serde_json::to_string_pretty(&Policy { public_access, policies })
        .map_err(|error| about(nonsense(error), &request))
}

/// Sets the container's policy; an empty one removes it.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    policy: &str,
) -> Result<()> {
    let policy = parse(policy)?;
    let mut document = Writer::new();
    document.element("SignedIdentifiers", |root| {
        for stored in &policy.policies {
            root.element("SignedIdentifier", |out| {
                out.text("Id", &stored.id);
                out.element("AccessPolicy", |access| {
                    for (name, text) in [
                        ("Start", &stored.start),
                        ("Expiry", &stored.expiry),
                        ("Permission", &stored.permission),
                    ] {
                        if !text.is_empty() {
                            access.text(name, text);
                        }
                    }
                });
            });
        }
    });
    let mut request = ask("set policy", Method::PUT, at_bucket(bucket, &QUERY))
        .typed("application/xml", document.finish());
    if policy.public_access != "none" {
        put_header(&mut request, "x-ms-blob-public-access", &policy.public_access)?;
    }
    account.ask_ok(&request, until).await.map(drop)
}

fn parse(text: &str) -> Result<Policy> {
    if text.trim().is_empty() {
        return Ok(Policy { public_access: none(), policies: Vec::new() });
    }
    let policy: Policy = serde_json::from_str(text).map_err(|error| {
        invalid(format!("the policy is not what a container of Azure can have: {error}")).remedy(
            "write it like {\"public_access\": \"none\", \"policies\": [{\"id\": \"readers\", \"expiry\": \
             \"2030-01-01T00:00:00Z\", \"permission\": \"rl\"}]}",
        )
    })?;
    if !matches!(policy.public_access.as_str(), "none" | "blob" | "container") {
        return Err(invalid(format!(
            "`public_access` is {:?} instead of `none`, `blob` or `container`",
            policy.public_access
        )));
    }
    if policy.policies.len() > MAX_POLICIES {
        return Err(invalid(format!(
            "{} policies are more than the {MAX_POLICIES} that a container can have",
            policy.policies.len()
        )));
    }
    for (index, stored) in policy.policies.iter().enumerate() {
        check_text("policy's id", &stored.id)?;
        if stored.id.is_empty() || stored.id.len() > 64 {
            return Err(invalid("the id of a policy has 1 to 64 characters"));
        }
        if policy.policies[..index].iter().any(|other| other.id == stored.id) {
            return Err(invalid(format!("two policies have the id {:?}", stored.id)));
        }
        if !stored.permission.bytes().all(|byte| b"racwdxyltmeop".contains(&byte)) {
            return Err(invalid(format!(
                "{:?} are not permissions of Azure: use letters of `racwdl`",
                stored.permission
            )));
        }
        for time in [&stored.start, &stored.expiry] {
            if !time.is_empty() && crate::wire::time::iso_ms(time) == 0 {
                return Err(invalid(format!("{time:?} is not a time like 2030-01-01T00:00:00Z")));
            }
        }
    }
    Ok(policy)
}
