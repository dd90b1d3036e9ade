// SPDX-License-Identifier: Apache-2.0
//! Lifecycle rules as GCS has them: one action each, without names. A rule of ours with several actions becomes several.

use std::time::Instant;

use driver_api::{RVec, Result, ext::LifecycleRule};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{bucket_path, json as request_of};
use crate::{
    account::Account,
    control::s3::lifecycle::check,
    error::unsupported,
    wire::{AnswerExt, AskExt, about},
};

#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    lifecycle: Option<Lifecycle>,
    #[serde(default)]
    name: String,
}

/// The rules of a bucket.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Lifecycle {
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Rule {
    action: Action,
    #[serde(default)]
    condition: Condition,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    storage_class: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(skip_serializing_if = "Option::is_none")]
    age: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_live: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    days_since_noncurrent_time: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    matches_prefix: Vec<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// The bucket's rules.
pub(crate) async fn get(
    account: &Account,
    until: Instant,
    bucket: &str,
) -> Result<RVec<LifecycleRule>> {
    let request =
        request_of(account, "show lifecycle", Method::GET, bucket, &bucket_path(bucket), &[])?;
    let answer: Answer = account.ask_ok(&request, until).await?.json(&request)?;
    crate::wire::same("bucket", bucket, &answer.name)
        .and_then(|()| decode(&answer.lifecycle.unwrap_or_default()))
        .map_err(|error| about(error, &request))
}

/// Replaces the bucket's rules by these, and gives back what the store keeps.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    rules: &[LifecycleRule],
) -> Result<RVec<LifecycleRule>> {
    check(rules)?;
    let lifecycle = encode(rules)?;
    if !rules.is_empty() {
        // What a rule of another tool says beyond ours would be lost without a word.
        get(account, until, bucket).await?;
    }
    let body =
        if rules.is_empty() { json!({"lifecycle": null}) } else { json!({"lifecycle": lifecycle}) };
    let request =
        request_of(account, "set lifecycle", Method::PATCH, bucket, &bucket_path(bucket), &[])?
            .typed("application/json", body.to_string());
    account.ask_ok(&request, until).await?;
    get(account, until, bucket).await
}

/// The rules as GCS takes them.
pub(crate) fn encode(rules: &[LifecycleRule]) -> Result<Lifecycle> {
    let mut lifecycle = Lifecycle::default();
    for rule in rules {
        if !rule.enabled {
            return Err(unsupported(format!(
                "rule {:?} is not in force, and GCS keeps only rules that are",
                rule.id
            ))
            .remedy("leave the rule out"));
        }
        let matches_prefix =
            if rule.prefix.is_empty() { Vec::new() } else { vec![rule.prefix.to_string()] };
        let mut add = |kind: &str, storage_class: &str, condition: Condition| {
            let action = Action { kind: kind.to_owned(), storage_class: storage_class.to_owned() };
            let condition = Condition { matches_prefix: matches_prefix.clone(), ..condition };
            lifecycle.rule.push(Rule { action, condition });
        };
        if rule.expire_days != 0 {
            // Without `isLive` it would take old versions by the age of their writing as well.
            let condition = Condition {
                age: Some(rule.expire_days),
                is_live: Some(true),
                ..Condition::default()
            };
            add("Delete", "", condition);
        }
        if rule.expire_noncurrent_days != 0 {
            let days_since_noncurrent_time = Some(rule.expire_noncurrent_days);
            add(
                "Delete",
                "",
                Condition {
                    days_since_noncurrent_time,
                    is_live: Some(false),
                    ..Condition::default()
                },
            );
        }
        if rule.abort_upload_days != 0 {
            let age = Some(rule.abort_upload_days);
            add("AbortIncompleteMultipartUpload", "", Condition { age, ..Condition::default() });
        }
        if rule.transition_days != 0 {
            let age = Some(rule.transition_days);
            add(
                "SetStorageClass",
                &rule.transition_class,
                Condition { age, ..Condition::default() },
            );
        }
    }
    Ok(lifecycle)
}

/// The rules of an answer. `Unsupported`: one of them does what a [`LifecycleRule`] cannot say.
pub(crate) fn decode(lifecycle: &Lifecycle) -> Result<RVec<LifecycleRule>> {
    lifecycle.rule.iter().enumerate().map(|(index, rule)| decode_rule(index, rule)).collect()
}

fn decode_rule(index: usize, rule: &Rule) -> Result<LifecycleRule> {
    let id = format!("rule-{}", index + 1);
    let foreign = |what: &str| {
        unsupported(format!("{id} of the bucket uses {what}, which is not to be had here"))
            .remedy("change the bucket's lifecycle with the tool that set this rule, or remove the rule with it")
    };
    let condition = &rule.condition;
    if let Some((name, _)) = condition.others.iter().find(|(_, value)| !value.is_null()) {
        return Err(foreign(&format!("the condition `{name}`")));
    }
    if condition.matches_prefix.len() > 1 {
        return Err(foreign("several prefixes"));
    }
    let mut info = LifecycleRule {
        id: id.as_str().into(),
        enabled: true,
        prefix: condition.matches_prefix.first().map_or("", String::as_str).into(),
        ..LifecycleRule::default()
    };
    let kind = rule.action.kind.as_str();
    match (kind, condition.age, condition.days_since_noncurrent_time, condition.is_live) {
        ("Delete", Some(age), None, None | Some(true)) => info.expire_days = age,
        ("Delete", None, Some(days), None | Some(false)) => info.expire_noncurrent_days = days,
        ("AbortIncompleteMultipartUpload", Some(age), None, None) => info.abort_upload_days = age,
        ("SetStorageClass", Some(age), None, None) => {
            info.transition_days = age;
            info.transition_class = rule.action.storage_class.as_str().into();
        }
        _ => return Err(foreign(&format!("`{kind}` with these conditions"))),
    }
    Ok(info)
}
