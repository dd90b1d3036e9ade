// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Error, ErrorKind, RVec, Result,
    ext::{BucketInfo, BucketSpec, ListQuery, Versioning},
};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{bucket_path, json as request_of, versions};
use crate::{
    account::Account,
    control::{names, pages::Tokens, s3},
    error::invalid,
    wire::{AnswerExt, AskExt, about, nonsense, time},
};

/// A bucket as the JSON API tells it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bucket {
    kind: String,
    name: String,
    location: String,
    storage_class: String,
    time_created: String,
    versioning: Option<Enabled>,
}

#[derive(Debug, Deserialize)]
struct Enabled {
    enabled: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Buckets {
    kind: String,
    items: Vec<Bucket>,
    next_page_token: String,
}

impl Bucket {
    fn info(&self) -> Result<BucketInfo> {
        if self.kind != "storage#bucket" || self.name.is_empty() {
            return Err(nonsense("it is no bucket"));
        }
        let mut info = BucketInfo::new(&self.name);
        info.created_ms = time::iso_ms(&self.time_created);
        info.region = self.location.as_str().into();
        info.versioning = match &self.versioning {
            None => Versioning::OFF,
            Some(Enabled { enabled: true }) => Versioning::ON,
            // What it kept when it did is still there.
            Some(Enabled { enabled: false }) => Versioning::SUSPENDED,
        };
        Ok(info)
    }
}

fn project(account: &Account) -> Result<&str> {
    account.config.project.as_deref().ok_or_else(|| {
        invalid("buckets belong to a project, and none is set")
            .remedy("set the backend's `project`")
    })
}

/// Creates a bucket, or finds it as it is to be.
pub(crate) async fn create(
    account: &Account,
    until: Instant,
    spec: &BucketSpec,
) -> Result<BucketInfo> {
    let project = project(account)?;
    let mut body = json!({"name": spec.name.as_str()});
    let location = match spec.region.as_str() {
        "" => account.config.location.as_deref().unwrap_or_default(),
        region => region,
    };
    if !location.is_empty() {
        body["location"] = Value::from(location);
    }
    let mut class = account.config.storage_class.clone().unwrap_or_default();
    for option in &spec.options {
        match (option.0.as_str(), option.1.as_str()) {
            ("storage_class", value) => class = value.to_owned(),
            ("uniform_access", value @ ("true" | "false")) => {
                body["iamConfiguration"] =
                    json!({"uniformBucketLevelAccess": {"enabled": value == "true"}});
            }
            ("uniform_access", other) => {
                return Err(invalid(format!(
                    "`uniform_access` is {other:?} instead of `true` or `false`"
                )));
            }
            (name, _) => {
                return Err(names::unknown_option(name, "storage_class`, `uniform_access"));
            }
        }
    }
    if !class.is_empty() {
        body["storageClass"] = Value::from(class.as_str());
    }
    if spec.versioning {
        body["versioning"] = json!({"enabled": true});
    }
    let request = request_of(
        account,
        "create bucket",
        Method::POST,
        &spec.name,
        "b",
        &[("project", project)],
    )?
    .typed("application/json", body.to_string());
    let reply = account.ask(&request, until).await?;
    if reply.status.as_u16() == 409 {
        if !list(account, until).await?.iter().any(|bucket| bucket.name == spec.name) {
            return Err(about(
                Error::new(
                    ErrorKind::ALREADY_EXISTS,
                    "the bucket exists, and belongs to somebody else",
                )
                .remedy("choose another name"),
                &request,
            ));
        }
        let (info, found) = get(account, until, &spec.name).await?;
        let wanted =
            if location.is_empty() { info.region.to_string() } else { location.to_uppercase() };
        names::same_bucket(&info, &wanted, spec)?;
        if !class.is_empty() && !found.storage_class.eq_ignore_ascii_case(&class) {
            let text =
                format!("the bucket exists, and its storage class is {}", found.storage_class);
            return Err(about(Error::new(ErrorKind::ALREADY_EXISTS, text), &request));
        }
        return Ok(info);
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    reply.json::<Bucket>(&request)?.info().map_err(|error| about(error, &request))
}

async fn get(account: &Account, until: Instant, bucket: &str) -> Result<(BucketInfo, Bucket)> {
    let request =
        request_of(account, "show bucket", Method::GET, bucket, &bucket_path(bucket), &[])?;
    let reply = account.ask_ok(&request, until).await?;
    let found: Bucket = reply.json(&request)?;
    let info = found.info().map_err(|error| about(error, &request))?;
    Ok((info, found))
}

/// One bucket.
pub(crate) async fn show(account: &Account, until: Instant, bucket: &str) -> Result<BucketInfo> {
    Ok(get(account, until, bucket).await?.0)
}

/// All buckets of the project.
pub(crate) async fn list(account: &Account, until: Instant) -> Result<RVec<BucketInfo>> {
    let project = project(account)?;
    let mut buckets = RVec::new();
    let (mut token, mut tokens) = (String::new(), Tokens::default());
    loop {
        let mut query = vec![("project", project), ("maxResults", "1000")];
        if !token.is_empty() {
            query.push(("pageToken", token.as_str()));
        }
        let request = request_of(account, "list buckets", Method::GET, "", "b", &query)?;
        let page: Buckets = account.ask_ok(&request, until).await?.json(&request)?;
        if page.kind != "storage#buckets" {
            return Err(about(nonsense("it is no list of buckets"), &request));
        }
        for bucket in &page.items {
            buckets.push(bucket.info().map_err(|error| about(error, &request))?);
        }
        if page.next_page_token.is_empty() {
            break;
        }
        token = tokens.next(&page.next_page_token).map_err(|error| about(error, &request))?;
    }
    buckets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(buckets)
}

/// Deletes an empty bucket.
pub(crate) async fn delete(account: &Account, until: Instant, bucket: &str) -> Result<()> {
    // GCS gives up uploads together with their bucket.
    let uploads = s3::uploads::list(account, until, bucket, "", "", 1).await?;
    if let Some(upload) = uploads.uploads.first() {
        return Err(names::not_empty(bucket, &format!("an unfinished upload of {:?}", upload.key)));
    }
    let request =
        request_of(account, "delete bucket", Method::DELETE, bucket, &bucket_path(bucket), &[])?;
    let reply = account.ask(&request, until).await?;
    if reply.status.is_success() || (reply.doubt.is_some() && reply.status.as_u16() == 404) {
        return Ok(());
    }
    if reply.status.as_u16() != 409 {
        return Err(reply.error(account, &request));
    }
    let query = ListQuery { limit: 1, versions: true, ..ListQuery::default() };
    let left = match versions::list(account, until, bucket, &query).await {
        Ok(page) => match page.objects.first() {
            Some(object) if object.latest => format!("the object {:?}", object.key),
            Some(object) => format!("an old version of {:?}", object.key),
            None => "something that listings do not tell".to_owned(),
        },
        Err(_) => "something".to_owned(),
    };
    Err(names::not_empty(bucket, &left))
}

/// Has the bucket keep versions, or no longer.
pub(crate) async fn set_versioning(
    account: &Account,
    until: Instant,
    bucket: &str,
    on: bool,
) -> Result<BucketInfo> {
    let (before, _) = get(account, until, bucket).await?;
    if !on && before.versioning != Versioning::ON {
        return Ok(before);
    }
    let request =
        request_of(account, "set versioning", Method::PATCH, bucket, &bucket_path(bucket), &[])?
            .typed("application/json", json!({"versioning": {"enabled": on}}).to_string());
    account.ask_ok(&request, until).await?;
    let (info, _) = get(account, until, bucket).await?;
    if (info.versioning == Versioning::ON) != on {
        let text = format!("versioning was set and is {} afterwards", info.versioning.name());
        return Err(about(nonsense(text), &request));
    }
    Ok(info)
}
