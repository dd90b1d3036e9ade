// SPDX-License-Identifier: Apache-2.0
use std::time::Instant;

use driver_api::{
    RString, RVec, Result, Tuple2,
    ext::{Conditions, ObjectChange, ObjectInfo, ObjectName, PutOptions},
};
use http::Method;

use crate::{
    account::Account,
    control::s3::tags as rules,
    error::{invalid, unsupported},
    get, info,
    wire::{AnswerExt, AskExt, ask, at_object, digest::md5_base64, put_header, quoted, xml},
};

fn at(object: &ObjectName, comp: &str) -> crate::wire::At {
    let version = ("versionid", Some(object.version.as_str()));
    let query = [("comp", Some(comp)), version];
    at_object(
        &object.bucket,
        &object.key,
        if object.version.is_empty() { &query[..1] } else { &query },
    )
}

/// The tags of a blob.
pub(crate) async fn tags(
    account: &Account,
    until: Instant,
    object: &ObjectName,
) -> Result<RVec<Tuple2<RString, RString>>> {
    let request = ask("show tags", Method::GET, at(object, "tags"));
    let reply = account.ask_ok(&request, until).await?;
    let root = reply.document("Tags", &request)?;
    let set = root.child("TagSet").into_iter().flat_map(|set| set.all("Tag"));
    Ok(set.map(|tag| Tuple2(tag.text("Key").into(), tag.text("Value").into())).collect())
}

/// Refuses tags that Azure does not keep: they have fewer characters than S3's.
pub(crate) fn check_tags(tags: &[Tuple2<RString, RString>]) -> Result<()> {
    rules::check(tags)?;
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b" +-./:=_".contains(&byte);
    match tags.iter().find(|tag| !tag.0.bytes().chain(tag.1.bytes()).all(known)) {
        None => Ok(()),
        Some(tag) => {
            Err(invalid(format!("the tag {:?} has characters that Azure does not keep", tag.0))
                .remedy("use letters, digits, blanks and any of +-./:=_"))
        }
    }
}

async fn set_tags(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    tags: &[Tuple2<RString, RString>],
) -> Result<()> {
    let mut document = xml::Writer::new();
    document.element("Tags", |root| {
        root.element("TagSet", |set| {
            for tag in tags {
                set.element("Tag", |out| {
                    out.text("Key", &tag.0);
                    out.text("Value", &tag.1);
                });
            }
        });
    });
    let body = document.finish();
    let sum = md5_base64(body.as_bytes());
    let mut request =
        ask("set tags", Method::PUT, at(object, "tags")).typed("application/xml", body);
    put_header(&mut request, "content-md5", &sum)?;
    account.ask_ok(&request, until).await.map(drop)
}

/// Changes what is said of a blob. Each step is for the blob as it was when it was looked at.
pub(crate) async fn change(
    account: &Account,
    until: Instant,
    object: &ObjectName,
    change: &ObjectChange,
) -> Result<ObjectInfo> {
    if change.expire_after_secs.is_some() {
        return Err(unsupported("blobs of Azure have no time of their own at which they go")
            .remedy("use a lifecycle rule of the storage account"));
    }
    if !object.version.is_empty() {
        return Err(invalid("an old version cannot be changed"));
    }
    if let Some(tags) = change.tags.as_ref().into_option() {
        check_tags(tags)?;
    }
    let found = get::find(account, object, &Conditions::default(), until).await?;
    let mut options = PutOptions {
        content_type: found.info.content_type.clone(),
        metadata: found.info.metadata.clone(),
        ..PutOptions::default()
    };
    if let Some(content_type) = change.content_type.as_ref().into_option() {
        options.content_type = content_type.clone();
    }
    if let Some(metadata) = change.metadata.as_ref().into_option() {
        options.metadata = metadata.clone();
    }
    let mut etag = found.info.etag.to_string();
    if change.metadata.is_some() || change.content_type.is_some() {
        // Metadata and the headers of HTTP are two requests; each takes what it knows of both.
        for (comp, prefix) in [("metadata", "x-ms-meta-"), ("properties", "x-ms-blob-")] {
            let whole = info::write(
                account,
                ask("change object", Method::PUT, at(object, comp)),
                &options,
                &found.mark,
            )?;
            let mut request = ask("change object", Method::PUT, at(object, comp));
            for (name, value) in &whole.headers {
                if name.as_str().starts_with(prefix) {
                    request.headers.insert(name.clone(), value.clone());
                }
            }
            put_header(&mut request, "if-match", &quoted(&etag))?;
            let reply = account.ask_ok(&request, until).await?;
            etag = reply.etag().to_owned();
        }
    }
    if let Some(class) = change.storage_class.as_ref().into_option() {
        let class = if class.is_empty() { "Hot" } else { class.as_str() };
        let mut request = ask("change object", Method::PUT, at(object, "tier"));
        put_header(&mut request, "x-ms-access-tier", class)?;
        account.ask_ok(&request, until).await?;
    }
    if let Some(tags) = change.tags.as_ref().into_option() {
        set_tags(account, until, object, tags).await?;
    }
    Ok(get::find(account, object, &Conditions::default(), until).await?.info)
}
