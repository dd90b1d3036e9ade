// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::RVec;
use driver_api::{Result, ext::LifecycleRule};
use http::Method;

use crate::{
    account::Account,
    call::{Answer, Ask},
    error::{invalid, unsupported},
    wire::{
        AnswerExt, AskExt, about, ask, at_bucket,
        digest::md5_base64,
        put_header,
        xml::{Element, Writer, check_text},
    },
};

const ROOT: &str = "LifecycleConfiguration";
/// The most rules of a bucket.
const MAX_RULES: usize = 1000;

/// The bucket's rules.
pub(crate) async fn get(
    account: &Account,
    until: Instant,
    bucket: &str,
) -> Result<RVec<LifecycleRule>> {
    let request = show(bucket);
    let Some(reply) = answer(account, until, &request).await? else { return Ok(RVec::new()) };
    decode(&reply.document(ROOT, &request)?).map_err(|error| about(error, &request))
}

fn show(bucket: &str) -> Ask {
    ask("show lifecycle", Method::GET, at_bucket(bucket, &[("lifecycle", None)]))
}

/// The rules' document, whose root was checked; `None`: there are no rules.
async fn answer(account: &Account, until: Instant, request: &Ask) -> Result<Option<Answer>> {
    let reply = account.ask(request, until).await?;
    if reply.code() == "NoSuchLifecycleConfiguration" {
        return Ok(None);
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, request));
    }
    if Element::parse(reply.text()?).is_ok_and(|root| root.name == "ListBucketResult") {
        return Err(about(
            unsupported("the store does not know lifecycle rules: it answers with a listing"),
            request,
        ));
    }
    reply.document(ROOT, request)?;
    Ok(Some(reply))
}

/// Replaces the bucket's rules by these, and gives back what the store keeps.
pub(crate) async fn set(
    account: &Account,
    until: Instant,
    bucket: &str,
    rules: &[LifecycleRule],
) -> Result<RVec<LifecycleRule>> {
    check(rules)?;
    // A store that does not know `?lifecycle` would take the request for one to the bucket itself, and delete it.
    let asked = show(bucket);
    if let Some(old) = answer(account, until, &asked).await?
        && !rules.is_empty()
    {
        // What a rule of another tool says beyond ours would be lost without a word.
        decode(&old.document(ROOT, &asked)?).map_err(|error| about(error, &asked))?;
    }
    let url = at_bucket(bucket, &[("lifecycle", None)]);
    let request = if rules.is_empty() {
        ask("remove lifecycle", Method::DELETE, url)
    } else {
        let body = encode(rules);
        let sum = md5_base64(body.as_bytes());
        let mut request = ask("set lifecycle", Method::PUT, url).typed("application/xml", body);
        put_header(&mut request, "content-md5", &sum)?;
        request
    };
    account.ask_ok(&request, until).await?;
    get(account, until, bucket).await
}

/// Refuses rules that no S3 could keep.
pub(crate) fn check(rules: &[LifecycleRule]) -> Result<()> {
    if rules.len() > MAX_RULES {
        return Err(invalid(format!(
            "{} rules are more than the {MAX_RULES} that a bucket can have",
            rules.len()
        )));
    }
    for (index, rule) in rules.iter().enumerate() {
        check_text("rule's name", &rule.id)?;
        check_text("rule's prefix", &rule.prefix)?;
        check_text("rule's storage class", &rule.transition_class)?;
        let place = if rule.id.is_empty() {
            format!("number {}", index + 1)
        } else {
            format!("{:?}", rule.id)
        };
        let days = [
            rule.expire_days,
            rule.expire_noncurrent_days,
            rule.abort_upload_days,
            rule.transition_days,
        ];
        if days == [0; 4] {
            return Err(invalid(format!("rule {place} does nothing: all of its days are 0")));
        }
        if (rule.transition_days == 0) != rule.transition_class.is_empty() {
            return Err(invalid(format!(
                "rule {place} needs both `transition_days` and `transition_class`, or none"
            )));
        }
        if rule.expire_days != 0 && rule.transition_days >= rule.expire_days {
            return Err(invalid(format!(
                "rule {place} moves objects after {} days, when they are gone already",
                rule.transition_days
            )));
        }
        if days.iter().any(|days| *days > i32::MAX as u32) {
            return Err(invalid(format!("rule {place} has more days than stores can count")));
        }
        if rule.id.len() > 255 {
            return Err(invalid(format!("rule {place} has a name of more than 255 bytes")));
        }
        if !rule.id.is_empty() && rules[..index].iter().any(|other| other.id == rule.id) {
            return Err(invalid(format!("two rules have the name {:?}", rule.id)));
        }
    }
    Ok(())
}

/// The rules as S3 takes them.
pub(crate) fn encode(rules: &[LifecycleRule]) -> String {
    let mut document = Writer::new();
    document.element_with(
        "LifecycleConfiguration",
        "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"",
        |root| {
            for (index, rule) in rules.iter().enumerate() {
                root.element("Rule", |out| encode_rule(out, rule, index));
            }
        },
    );
    document.finish()
}

fn encode_rule(out: &mut Writer, rule: &LifecycleRule, index: usize) {
    match rule.id.as_str() {
        // Stores make up names of their own, which change whenever the rules are set.
        "" => out.text("ID", &format!("rule-{}", index + 1)),
        id => out.text("ID", id),
    }
    out.element("Filter", |filter| filter.text("Prefix", &rule.prefix));
    out.text("Status", if rule.enabled { "Enabled" } else { "Disabled" });
    if rule.transition_days != 0 {
        out.element("Transition", |inside| {
            inside.text("Days", &rule.transition_days.to_string());
            inside.text("StorageClass", &rule.transition_class);
        });
    }
    if rule.expire_days != 0 {
        out.element("Expiration", |inside| inside.text("Days", &rule.expire_days.to_string()));
    }
    if rule.expire_noncurrent_days != 0 {
        out.element("NoncurrentVersionExpiration", |inside| {
            inside.text("NoncurrentDays", &rule.expire_noncurrent_days.to_string());
        });
    }
    if rule.abort_upload_days != 0 {
        out.element("AbortIncompleteMultipartUpload", |inside| {
            inside.text("DaysAfterInitiation", &rule.abort_upload_days.to_string());
        });
    }
}

/// The rules of an answer. `Unsupported`: one of them does what a [`LifecycleRule`] cannot say, so that setting what is
/// shown would change it.
pub(crate) fn decode(root: &Element<'_>) -> Result<RVec<LifecycleRule>> {
    root.all("Rule").map(decode_rule).collect()
}

fn decode_rule(rule: &Element<'_>) -> Result<LifecycleRule> {
    let id = rule.text("ID");
    let foreign = |what: &str| {
        unsupported(format!("rule {id:?} of the bucket uses {what}, which is not to be had here"))
            .remedy("change the bucket's lifecycle with the tool that set this rule, or remove the rule with it")
    };
    let days = |element: &str, inside: &str| -> Result<u32> {
        let mut all = rule.all(element);
        let Some(action) = all.next() else { return Ok(0) };
        if all.next().is_some() {
            return Err(foreign(&format!("several `{element}`")));
        }
        let known = [inside, "StorageClass"];
        if let Some(other) = action.children.iter().find(|child| !known.contains(&child.name)) {
            return Err(foreign(&format!("`{}` of `{element}`", other.name)));
        }
        action.number(inside)
    };
    const KNOWN: [&str; 8] = [
        "ID",
        "Filter",
        "Prefix",
        "Status",
        "Transition",
        "Expiration",
        "NoncurrentVersionExpiration",
        "AbortIncompleteMultipartUpload",
    ];
    if let Some(other) = rule.children.iter().find(|child| !KNOWN.contains(&child.name)) {
        return Err(foreign(&format!("`{}`", other.name)));
    }
    let prefix = match rule.child("Filter") {
        None => rule.text("Prefix"),
        Some(filter) => match filter.children.iter().find(|child| child.name != "Prefix") {
            None => filter.text("Prefix"),
            // radosgw gives a prefix alone in an `And`.
            Some(and)
                if and.name == "And" && and.children.iter().all(|child| child.name == "Prefix") =>
            {
                and.text("Prefix")
            }
            Some(other) => return Err(foreign(&format!("the filter `{}`", other.name))),
        },
    };
    Ok(LifecycleRule {
        id: id.into(),
        enabled: rule.text("Status") == "Enabled",
        prefix: prefix.into(),
        expire_days: days("Expiration", "Days")?,
        expire_noncurrent_days: days("NoncurrentVersionExpiration", "NoncurrentDays")?,
        abort_upload_days: days("AbortIncompleteMultipartUpload", "DaysAfterInitiation")?,
        transition_days: days("Transition", "Days")?,
        transition_class: rule
            .child("Transition")
            .map_or("", |transition| transition.text("StorageClass"))
            .into(),
        ..LifecycleRule::default()
    })
}
