// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Error, ErrorKind, RVec, Result,
    ext::{BucketInfo, BucketSpec, ListQuery, Versioning},
};
use serde::{Deserialize, Serialize};
use swift::{Container, ContainerUpdate, Swift, Versioning as Theirs};

use super::{listing, uploads};
use crate::{
    account::Account,
    control::names,
    error::{invalid, unsupported},
    swift::{container, within},
};

fn versioning(theirs: &Theirs) -> Versioning {
    match theirs {
        Theirs::Off => Versioning::OFF,
        Theirs::Suspended => Versioning::SUSPENDED,
        // The older ways keep versions too, in another container.
        _ => Versioning::ON,
    }
}

fn info(container: &Container) -> BucketInfo {
    let mut info = BucketInfo::new(&container.name);
    info.versioning = versioning(&container.versioning);
    (info.objects, info.bytes) = (container.objects, container.bytes);
    info
}

async fn look(store: &Swift, until: Instant, bucket: &str) -> Result<Container> {
    within(until, false, "the container cannot be asked for", store.container(bucket))
        .await
        .map_err(|error| error.with("bucket", bucket))
}

/// Creates a container, or finds it as it is to be.
pub(crate) async fn create(
    account: &Account,
    until: Instant,
    spec: &BucketSpec,
) -> Result<BucketInfo> {
    if !spec.region.is_empty() {
        return Err(unsupported("containers of Swift are where their account is")
            .remedy("leave `region` out, or set the backend's"));
    }
    let mut policy = None;
    for option in &spec.options {
        match option.0.as_str() {
            "storage_policy" => policy = Some(option.1.to_string()),
            name => return Err(names::unknown_option(name, "storage_policy")),
        }
    }
    let store = container(account, &spec.name)?;
    let settings = ContainerUpdate {
        policy: policy.clone(),
        versioning: spec.versioning.then_some(Theirs::Enabled),
        ..ContainerUpdate::default()
    };
    let made = within(
        until,
        true,
        "the container cannot be created",
        store.create_container(&spec.name, &settings),
    )
    .await;
    match made {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::ALREADY_EXISTS => {
            let found = look(&store, until, &spec.name).await?;
            names::same_bucket(&info(&found), "", spec)?;
            if policy.is_some() && found.policy.is_some() && found.policy != policy {
                let text = format!(
                    "the container exists, and its storage policy is {}",
                    found.policy.unwrap_or_default()
                );
                return Err(Error::new(ErrorKind::ALREADY_EXISTS, text).with("bucket", &spec.name));
            }
        }
        Err(error) => return Err(error.with("bucket", &spec.name)),
    }
    show(account, until, &spec.name).await
}

/// Deletes an empty container, and the one of its segments if that is empty too.
pub(crate) async fn delete(account: &Account, until: Instant, bucket: &str) -> Result<()> {
    let store = container(account, bucket)?;
    look(&store, until, bucket).await?;
    if let Some(upload) = uploads::list(account, until, bucket, "", "", 1).await?.uploads.first() {
        return Err(names::not_empty(bucket, &format!("an unfinished upload of {:?}", upload.key)));
    }
    let doing =
        within(until, true, "the container cannot be deleted", store.delete_container(bucket));
    if let Err(error) = doing.await {
        let mut query = ListQuery { limit: 1, ..ListQuery::default() };
        if let Ok(page) = listing::list(account, until, bucket, &query).await
            && let Some(object) = page.objects.first()
        {
            return Err(names::not_empty(bucket, &format!("the object {:?}", object.key)));
        }
        query.versions = true;
        if let Ok(page) = listing::list(account, until, bucket, &query).await
            && let Some(object) = page.objects.first()
        {
            return Err(names::not_empty(bucket, &format!("an old version of {:?}", object.key)));
        }
        return Err(error.with("bucket", bucket));
    }
    let segments = store.segments_name().to_owned();
    // What is left in it belongs to something else; it stays.
    let _ = within(
        until,
        true,
        "the container of segments cannot be deleted",
        store.delete_container(&segments),
    )
    .await;
    Ok(())
}

/// All containers of the account, but those that hold the segments of others.
pub(crate) async fn list(account: &Account, until: Instant) -> Result<RVec<BucketInfo>> {
    let store = container(account, "")?;
    let all =
        within(until, false, "the containers cannot be listed", store.list_containers("")).await?;
    let mut infos: Vec<BucketInfo> = Vec::with_capacity(all.len());
    for entry in &all {
        let owner = entry.name.strip_suffix("_segments");
        if owner.is_some_and(|owner| all.iter().any(|other| other.name == owner)) {
            continue;
        }
        let mut info = BucketInfo::new(&entry.name);
        (info.objects, info.bytes) = (entry.objects, entry.bytes);
        infos.push(info);
    }
    infos.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(infos.into())
}

/// One container.
pub(crate) async fn show(account: &Account, until: Instant, bucket: &str) -> Result<BucketInfo> {
    Ok(info(&look(&container(account, bucket)?, until, bucket).await?))
}

/// Has the container keep versions, or no longer.
pub(crate) async fn set_versioning(
    account: &Account,
    until: Instant,
    bucket: &str,
    on: bool,
) -> Result<BucketInfo> {
    let store = container(account, bucket)?;
    let before = look(&store, until, bucket).await?;
    if matches!(before.versioning, Theirs::Location(_) | Theirs::History(_)) {
        return Err(unsupported(
            "the container keeps its versions in another container, the older way of Swift",
        )
        .with("bucket", bucket)
        .remedy("change that with the tool that set it"));
    }
    if !on && before.versioning == Theirs::Off {
        return Ok(info(&before));
    }
    let versioning = Some(if on { Theirs::Enabled } else { Theirs::Suspended });
    let settings = ContainerUpdate { versioning, ..ContainerUpdate::default() };
    within(until, true, "versioning cannot be set", store.update_container(bucket, &settings))
        .await?;
    let after = info(&look(&store, until, bucket).await?);
    if (after.versioning == Versioning::ON) != on {
        return Err(unsupported("the server does not keep versions of objects")
            .with("bucket", bucket)
            .remedy("have its versioned_writes middleware allow object versioning"));
    }
    Ok(after)
}

/// A container's two access lists.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(default)]
    read: String,
    #[serde(default)]
    write: String,
}

/// The container's access lists as JSON; empty: it has none.
pub(crate) async fn policy(account: &Account, until: Instant, bucket: &str) -> Result<String> {
    let found = look(&container(account, bucket)?, until, bucket).await?;
    if found.read_acl.is_empty() && found.write_acl.is_empty() {
        return Ok(String::new());
    }
    let policy = Policy { read: found.read_acl, write: found.write_acl };
    serde_json::to_string_pretty(&policy)
        .map_err(|error| Error::new(ErrorKind::INTERNAL, error.to_string()))
}

/// Sets the container's access lists; an empty text removes them.
pub(crate) async fn set_policy(
    account: &Account,
    until: Instant,
    bucket: &str,
    policy: &str,
) -> Result<()> {
    let policy = if policy.trim().is_empty() {
        Policy::default()
    } else {
        serde_json::from_str(policy).map_err(|error| {
            invalid(format!("the policy is not what a container of Swift can have: {error}"))
                .remedy(
                    "write it like {\"read\": \".r:*,.rlistings\", \"write\": \"project:user\"}",
                )
        })?
    };
    for acl in [&policy.read, &policy.write] {
        if !acl.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(invalid(format!("the access list {acl:?} is not printable ASCII")));
        }
    }
    let store = container(account, bucket)?;
    // A POST to a container that is not there is an error of its own; nothing is created by it.
    let settings = ContainerUpdate {
        read_acl: Some(policy.read),
        write_acl: Some(policy.write),
        ..ContainerUpdate::default()
    };
    within(until, true, "the policy cannot be set", store.update_container(bucket, &settings))
        .await
        .map_err(|error| error.with("bucket", bucket))
}
