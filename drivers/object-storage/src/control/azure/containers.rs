// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    Error, ErrorKind, RVec, Result,
    ext::{BucketInfo, BucketSpec, ListQuery},
};
use http::Method;

use super::{NO_VERSIONING, listing, uploads};
use crate::{
    account::Account,
    control::{names, pages::Tokens},
    error::{invalid, unsupported},
    wire::{AnswerExt, about, ask, at_bucket, at_service, nonsense, put_header, time},
};

/// Creates a container, or finds it as it is to be.
pub(crate) async fn create(
    account: &Account,
    until: Instant,
    spec: &BucketSpec,
) -> Result<BucketInfo> {
    if !spec.region.is_empty() {
        return Err(unsupported("containers of Azure are where their storage account is")
            .remedy("leave `region` out"));
    }
    if spec.versioning {
        return Err(unsupported(NO_VERSIONING));
    }
    let mut access = "";
    for option in &spec.options {
        match (option.0.as_str(), option.1.as_str()) {
            ("public_access", "none") => {}
            ("public_access", level @ ("blob" | "container")) => access = level,
            ("public_access", other) => {
                return Err(invalid(format!(
                    "`public_access` is {other:?} instead of `none`, `blob` or `container`"
                )));
            }
            (name, _) => return Err(names::unknown_option(name, "public_access")),
        }
    }
    let mut request =
        ask("create bucket", Method::PUT, at_bucket(&spec.name, &[("restype", Some("container"))]));
    if !access.is_empty() {
        put_header(&mut request, "x-ms-blob-public-access", access)?;
    }
    let reply = account.ask(&request, until).await?;
    if reply.status.as_u16() == 409 && reply.code() == "ContainerAlreadyExists" {
        let (info, found) = properties(account, until, &spec.name).await?;
        if found == access {
            return Ok(info);
        }
        let text = format!(
            "the container exists, and its public access is {found:?} instead of {access:?}"
        );
        return Err(about(
            Error::new(ErrorKind::ALREADY_EXISTS, text)
                .remedy("use it as it is, change its policy, or choose another name"),
            &request,
        ));
    }
    if !reply.status.is_success() {
        return Err(reply.error(account, &request));
    }
    show(account, until, &spec.name).await
}

/// Deletes an empty container. Azure would delete one with everything in it: it is looked into first.
pub(crate) async fn delete(account: &Account, until: Instant, bucket: &str) -> Result<()> {
    let query = ListQuery { limit: 1, ..ListQuery::default() };
    // A page may be empty although there are more.
    let mut page = listing::list(account, until, bucket, &query).await?;
    while page.objects.is_empty() && !page.next.is_empty() {
        page =
            listing::list(account, until, bucket, &ListQuery { page: page.next, ..query.clone() })
                .await?;
    }
    if let Some(blob) = page.objects.first() {
        return Err(names::not_empty(bucket, &format!("the object {:?}", blob.key)));
    }
    let older =
        listing::list(account, until, bucket, &ListQuery { versions: true, ..query.clone() }).await;
    if let Ok(page) = older
        && let Some(blob) = page.objects.first()
    {
        return Err(names::not_empty(bucket, &format!("an old version of {:?}", blob.key)));
    }
    if let Some(upload) = uploads::list(account, until, bucket, "", "", 1).await?.uploads.first() {
        return Err(names::not_empty(bucket, &format!("an unfinished upload of {:?}", upload.key)));
    }
    let request =
        ask("delete bucket", Method::DELETE, at_bucket(bucket, &[("restype", Some("container"))]));
    let reply = account.ask(&request, until).await?;
    if reply.status.is_success() || (reply.doubt.is_some() && reply.status.as_u16() == 404) {
        return Ok(());
    }
    Err(reply.error(account, &request))
}

/// All containers of the account.
pub(crate) async fn list(account: &Account, until: Instant) -> Result<RVec<BucketInfo>> {
    let mut containers = RVec::new();
    let (mut marker, mut markers) = (String::new(), Tokens::default());
    loop {
        let mut query = vec![("comp", Some("list"))];
        if !marker.is_empty() {
            query.push(("marker", Some(marker.as_str())));
        }
        let request = ask("list buckets", Method::GET, at_service(&query));
        let reply = account.ask_ok(&request, until).await?;
        let root = reply.document("EnumerationResults", &request)?;
        for container in root.child("Containers").into_iter().flat_map(|list| list.all("Container"))
        {
            let mut info = BucketInfo::new(container.need("Name")?);
            // When it was created is not told; when its properties were changed is something else.
            info.created_ms = 0;
            containers.push(info);
        }
        match root.text("NextMarker") {
            "" => break,
            next => marker = markers.next(next).map_err(|error| about(error, &request))?,
        }
    }
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(containers)
}

/// One container.
pub(crate) async fn show(account: &Account, until: Instant, bucket: &str) -> Result<BucketInfo> {
    Ok(properties(account, until, bucket).await?.0)
}

/// The container, and its public access: empty, `blob` or `container`.
async fn properties(
    account: &Account,
    until: Instant,
    bucket: &str,
) -> Result<(BucketInfo, String)> {
    let request =
        ask("show bucket", Method::GET, at_bucket(bucket, &[("restype", Some("container"))]));
    let reply = account.ask_ok(&request, until).await?;
    if time::http_ms(reply.header("last-modified")) == 0 {
        return Err(about(nonsense("it does not say when the container was changed"), &request));
    }
    Ok((BucketInfo::new(bucket), reply.header("x-ms-blob-public-access").to_owned()))
}
