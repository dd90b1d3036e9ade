// SPDX-License-Identifier: Apache-2.0
//! S3 changes what is said of an object by copying it onto itself.

use std::{sync::Arc, time::Instant};

use driver_api::{
    ErrorKind, Result,
    ext::{Conditions, ObjectChange, ObjectInfo, ObjectName, PutOptions},
};
use http::Method;

use super::tags;
use crate::{
    account::Account,
    copy,
    error::{invalid, unsupported},
    get, info,
    info::Found,
    mark, probing,
    wire::{AnswerExt, ask, at_object, put_header, quoted, url::escape},
};

/// Changes what is said of an object, if its content is still what it was when it was looked at.
pub(crate) async fn change(
    account: &Arc<Account>,
    until: Instant,
    latest: Option<Instant>,
    object: &ObjectName,
    change: &ObjectChange,
) -> Result<ObjectInfo> {
    if change.expire_after_secs.is_some() {
        return Err(unsupported("objects of S3 have no time of their own at which they go")
            .remedy("use a lifecycle rule of the bucket"));
    }
    if !object.version.is_empty()
        && (change.content_type.is_some()
            || change.metadata.is_some()
            || change.storage_class.is_some())
    {
        return Err(invalid("of an old version only the tags can be changed"));
    }
    if let Some(tags) = change.tags.as_ref().into_option() {
        tags::check(tags)?;
    }
    let found = get::find(account, object, &Conditions::default(), until).await?;
    if change.content_type.is_some() || change.metadata.is_some() || change.storage_class.is_some()
    {
        let until = copy::longer(until, latest, found.info.size);
        let kept = match change.tags.as_ref().into_option() {
            Some(tags) => tags.clone(),
            None => match tags::get(account, until, object).await {
                Err(error) if error.kind() == ErrorKind::UNSUPPORTED => Default::default(),
                tags => tags?,
            },
        };
        let mut options = PutOptions {
            content_type: found.info.content_type.clone(),
            metadata: found.info.metadata.clone(),
            storage_class: found.info.storage_class.clone(),
            ..PutOptions::default()
        };
        if let Some(content_type) = change.content_type.as_ref().into_option() {
            options.content_type = content_type.clone();
        }
        if let Some(metadata) = change.metadata.as_ref().into_option() {
            options.metadata = metadata.clone();
        }
        if let Some(class) = change.storage_class.as_ref().into_option() {
            options.storage_class =
                if class.is_empty() { "STANDARD".into() } else { class.clone() };
        }
        if found.info.size > account.config.copy_at_once() {
            options.tags = kept;
            return in_parts(account, object, &found, options, until).await;
        }
        let request =
            ask("change object", Method::PUT, at_object(&object.bucket, &object.key, &[]))
                .headers(&account.encrypt)
                .headers(&account.customer)
                .moves(found.info.size);
        let mut request = info::write(account, request, &options, &found.mark)?;
        let source = format!("/{}/{}", escape(&object.bucket, false), escape(&object.key, true));
        put_header(&mut request, "x-amz-copy-source", &source)?;
        put_header(&mut request, "x-amz-copy-source-if-match", &quoted(&found.info.etag))?;
        put_header(&mut request, "x-amz-metadata-directive", "REPLACE")?;
        for (name, value) in &account.customer {
            let name = name.as_str().replace("x-amz-", "x-amz-copy-source-");
            request = request.header(&name, value.to_str().unwrap_or_default())?;
        }
        let reply = account.ask_ok(&request, until).await?;
        reply.document("CopyObjectResult", &request)?;
        // Whether a copy keeps tags is each store's own taste.
        if change.tags.is_some() || !kept.is_empty() {
            tags::set(account, until, object, &kept).await?;
        }
    } else if let Some(tags) = change.tags.as_ref().into_option() {
        tags::set(account, until, object, tags).await?;
    }
    Ok(get::find(account, object, &Conditions::default(), until).await?.info)
}

/// Changes an object that is too large to be copied by one request. Whoever wrote it is not told by the new one: it has a
/// mark of its own, by which its completion is proven.
async fn in_parts(
    account: &Arc<Account>,
    object: &ObjectName,
    found: &Found,
    mut options: PutOptions,
    until: Instant,
) -> Result<ObjectInfo> {
    options.mark = mark::of("")?.into();
    // Another writer's object is not replaced, where the store can tell.
    let only_this = Conditions::matching(&found.info.etag);
    let need = probing::Need::of_completion(&only_this);
    let target = match probing::check(account, &object.bucket, need, until).await {
        Ok(()) => only_this,
        Err(error) if error.kind() == ErrorKind::UNSUPPORTED => Conditions::default(),
        Err(error) => return Err(error),
    };
    let job = copy::parts::Job { from: object, source: found, to: object, target: &target };
    copy::parts::copy(account, &job, &options, until).await
}
