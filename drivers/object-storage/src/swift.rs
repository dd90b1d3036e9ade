// SPDX-License-Identifier: Apache-2.0
//! Swift, behind the traits of its own client, which logs in, repeats and proves its conditional writes by itself.

use std::time::Instant;

use bytes::Bytes;
use driver_api::{
    Error, ErrorKind, Result, Tuple2,
    ext::{Conditions, CopyOptions, ObjectInfo, ObjectName, PutOptions},
};
use object_store::{
    Attribute, Attributes, ObjectStore, PutMode, RetryConfig, client::HttpClient, path::Path,
};
use swift::{Auth, Expiry, Failure, FailureKind, KeystoneIdentity, Secret, Swift};

mod get;

pub(crate) use get::{find, get, head};

use crate::{
    account::{Account, Credential},
    client::{Shared, trusted},
    config::{Config, SwiftAuth},
    error::{invalid, unknown, unsupported},
    get::now_ms,
    info::{check_metadata, is_md5},
    mark,
};

/// The account, at no container yet. Nothing is asked.
pub(crate) fn open(config: &Config, client: &HttpClient) -> Result<Swift> {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    let domain = |option: &Option<String>| option.clone().unwrap_or_else(|| "Default".to_owned());
    let auth = match config.auth.unwrap_or(SwiftAuth::V3) {
        SwiftAuth::V1 => Auth::V1 {
            auth_url: text(&config.auth_url),
            user: text(&config.user),
            key: Secret::new(text(&config.password).trim()),
        },
        SwiftAuth::V3 => Auth::Keystone {
            auth_url: text(&config.auth_url),
            identity: match &config.application_credential_id {
                Some(id) => KeystoneIdentity::Application {
                    id: id.clone(),
                    secret: Secret::new(text(&config.application_credential_secret).trim()),
                },
                None => KeystoneIdentity::Password {
                    user: text(&config.user),
                    password: Secret::new(text(&config.password).trim()),
                    user_domain: domain(&config.user_domain),
                    project: text(&config.project),
                    project_domain: domain(&config.project_domain),
                },
            },
            region: config.region.clone(),
            interface: config.interface.clone().unwrap_or_else(|| "public".to_owned()),
        },
    };
    let mut theirs = swift::Config::new(auth, "");
    theirs.storage_url = config.endpoint.clone();
    theirs.tempurl_key = config.temp_url_key.as_deref().map(Secret::new);
    theirs.connect_timeout = config.connect_timeout();
    theirs.request_timeout = config.request_timeout();
    theirs.retry = RetryConfig {
        retry_timeout: config.operation_timeout(),
        max_retries: 50,
        ..RetryConfig::default()
    };
    theirs.ca_pem = trusted(config)?;
    Swift::with_connector(theirs, &Shared(client.clone()))
        .map_err(|error| of_swift(&error, "the account cannot be used"))
}

/// A container of the account.
pub(crate) fn container(account: &Account, name: &str) -> Result<Swift> {
    match &account.credential {
        Credential::Swift(swift) => Ok(swift.with_container(name)),
        _ => Err(unsupported("this account is not Swift's")),
    }
}

/// The key as Swift's client has it.
pub(crate) fn path(key: &str) -> Result<Path> {
    let wrong = |why: &str| {
        invalid(format!("the key is refused: {why}"))
            .with("object", key)
            .remedy("use a key without slashes at its ends and empty parts between them")
    };
    // The client's paths leave slashes at their ends out: another object's name would be used without a word.
    match Path::parse(key) {
        Ok(path) if path.as_ref() == key => Ok(path),
        Ok(path) => Err(wrong(&format!("it would be taken for {:?}", path.as_ref()))),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// The error of Swift's client as ours.
pub(crate) fn of_swift(error: &object_store::Error, doing: &str) -> Error {
    let Some(failure) = Failure::of(error) else { return crate::error::of_store(error, doing) };
    if failure.outcome_unknown() {
        return unknown(format!("{doing}: {failure}")).caused_by(failure);
    }
    let kind = match failure.kind() {
        FailureKind::NotFound => ErrorKind::NOT_FOUND,
        FailureKind::AlreadyExists => ErrorKind::ALREADY_EXISTS,
        FailureKind::Precondition | FailureKind::NotModified => ErrorKind::CONFLICT,
        FailureKind::PermissionDenied => ErrorKind::PERMISSION_DENIED,
        FailureKind::Unauthenticated => ErrorKind::UNAUTHENTICATED,
        FailureKind::TimedOut => ErrorKind::TIMED_OUT,
        FailureKind::Full => ErrorKind::NO_SPACE,
        FailureKind::Corrupt => ErrorKind::CORRUPTED,
        FailureKind::Unsupported => ErrorKind::UNSUPPORTED,
        FailureKind::Rejected => ErrorKind::INVALID_ARGUMENT,
        _ => ErrorKind::UNAVAILABLE,
    };
    let told = match kind {
        ErrorKind::UNAUTHENTICATED => {
            format!("the server refuses who asks: {failure}")
        }
        _ => format!("{doing}: {failure}"),
    };
    let told = Error::new(kind, told);
    if kind == ErrorKind::NOT_FOUND {
        return told.remedy("look at the names with: novastor object list; a bucket is made by: novastor bucket create");
    }
    if failure.advice().is_empty() { told } else { told.remedy(failure.advice()) }
}

/// Bounds `doing` by the deadline.
pub(crate) async fn within<T>(
    until: Instant,
    mutates: bool,
    what: &str,
    doing: impl Future<Output = object_store::Result<T>>,
) -> Result<T> {
    match tokio::time::timeout_at(until.into(), doing).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(of_swift(&error, what)),
        Err(_) if mutates => Err(unknown(format!("{what}: no answer within the deadline"))),
        Err(_) => {
            Err(Error::new(ErrorKind::TIMED_OUT, format!("{what}: no answer within the deadline"))
                .remedy("look at the server and the network"))
        }
    }
}

/// Whether the account can be asked for.
pub(crate) async fn probe(account: &Account, until: Instant) -> Result<()> {
    let Credential::Swift(swift) = &account.credential else { return Ok(()) };
    match &account.config.probe_bucket {
        Some(bucket) => {
            within(until, false, "the container cannot be asked for", swift.container(bucket))
                .await
                .map(drop)
        }
        None => {
            within(until, false, "the account cannot be asked for", swift.account()).await.map(drop)
        }
    }
}

/// What is to be said of an object, as Swift's client takes it.
pub(crate) fn attributes(options: &PutOptions, mark: &str) -> Result<Attributes> {
    if !options.tags.is_empty() {
        return Err(unsupported("objects of Swift have no tags").remedy("use metadata"));
    }
    if !options.storage_class.is_empty() {
        return Err(unsupported("objects of Swift have no storage classes"));
    }
    let mut attributes = Attributes::new();
    let content_type = match options.content_type.as_str() {
        "" => "application/octet-stream",
        text => text,
    };
    attributes.insert(Attribute::ContentType, content_type.to_owned().into());
    for Tuple2(name, value) in &options.metadata {
        check_metadata(crate::config::Kind::Swift, name, value)?;
        let attribute = match name.as_str() {
            "cache-control" => Attribute::CacheControl,
            "content-disposition" => Attribute::ContentDisposition,
            "content-encoding" => Attribute::ContentEncoding,
            "content-language" => Attribute::ContentLanguage,
            name => Attribute::Metadata(name.to_owned().into()),
        };
        attributes.insert(attribute, value.to_string().into());
    }
    if !mark.is_empty() {
        attributes.insert(Attribute::Metadata("novastor-mark".into()), mark.to_owned().into());
    }
    if options.expire_after_secs > 0 {
        let secs = options.expire_after_secs.to_string();
        attributes.insert(Attribute::Metadata("x-delete-after".into()), secs.into());
    }
    Ok(attributes)
}

fn mode(conditions: &Conditions) -> Result<PutMode> {
    crate::put::check_conditions(conditions)?;
    if !conditions.if_match.is_empty() {
        return Err(unsupported("Swift ignores `if_match` when an object is written, which would lose data without a word")
            .remedy("write new keys create-only instead"));
    }
    Ok(if conditions.if_none_match == "*" { PutMode::Create } else { PutMode::Overwrite })
}

/// Writes an object.
pub(crate) async fn put(
    account: &Account,
    object: &ObjectName,
    data: Bytes,
    options: &PutOptions,
    until: Instant,
) -> Result<ObjectInfo> {
    let mode = mode(&options.conditions)?;
    let mark = if options.mark.is_empty() { String::new() } else { mark::of(&options.mark)? };
    let theirs = object_store::PutOptions {
        mode: mode.clone(),
        attributes: attributes(options, &mark)?,
        ..object_store::PutOptions::default()
    };
    let (store, path) = (container(account, &object.bucket)?, path(&object.key)?);
    let size = data.len() as u64;
    let doing = store.put_opts(&path, data.into(), theirs);
    let told = match within(until, true, "the object cannot be written", doing).await {
        Ok(told) => told,
        // A writer that repeats its write by its mark gets to hear that it was its own that came first.
        Err(error) if error.kind() == ErrorKind::ALREADY_EXISTS && !options.mark.is_empty() => {
            match find(account, object, &Conditions::default(), until).await {
                Ok((info, found)) if found == mark => return Ok(info),
                _ => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let etag = told.e_tag.unwrap_or_default();
    let mut info = ObjectInfo {
        key: object.key.clone(),
        size,
        version: told.version.unwrap_or_default().into(),
        modified_ms: now_ms(),
        content_type: options.content_type.clone(),
        metadata: options.metadata.clone(),
        latest: true,
        ..ObjectInfo::default()
    };
    if is_md5(&etag) {
        info.checksum = format!("md5:{}", etag.to_lowercase()).into();
    }
    info.etag = etag.into();
    if options.expire_after_secs > 0 {
        info.expires_ms = now_ms().saturating_add(options.expire_after_secs.saturating_mul(1000));
    }
    info.metadata.sort();
    Ok(info)
}

/// Copies an object.
pub(crate) async fn copy(
    account: &Account,
    from: &ObjectName,
    to: &ObjectName,
    options: &CopyOptions,
    until: Instant,
    latest: Option<Instant>,
) -> Result<ObjectInfo> {
    if from.bucket != to.bucket {
        return Err(unsupported("Swift's client copies within a container only")
            .remedy("get the object and put it"));
    }
    if !from.version.is_empty() {
        return Err(unsupported("Swift's client copies the latest version only")
            .remedy("get that version and put it"));
    }
    let change = &options.change;
    if change.content_type.is_some()
        || change.metadata.is_some()
        || change.tags.is_some()
        || change.storage_class.is_some()
    {
        return Err(unsupported("Swift copies what is said of an object with it")
            .remedy("copy it, then change the copy"));
    }
    let mode = match mode(&options.target)? {
        PutMode::Create => object_store::CopyMode::Create,
        _ => object_store::CopyMode::Overwrite,
    };
    let (store, source, target) =
        (container(account, &from.bucket)?, path(&from.key)?, path(&to.key)?);
    let before = find(account, from, &options.source, until).await?.0;
    let until = crate::copy::longer(until, latest, before.size);
    let theirs = object_store::CopyOptions::new().with_mode(mode);
    within(until, true, "the object cannot be copied", store.copy_opts(&source, &target, theirs))
        .await?;
    if let driver_api::ROption::RSome(secs) = change.expire_after_secs {
        let expiry = if secs == 0 { Expiry::Never } else { Expiry::After(secs) };
        within(until, true, "the copy's expiry cannot be set", store.set_expiry(&target, expiry))
            .await?;
    }
    let info = find(account, to, &Conditions::default(), until).await?.0;
    if info.size != before.size {
        return Err(Error::new(ErrorKind::CORRUPTED, "the copy has another size than its source")
            .with("object", &to.key));
    }
    Ok(info)
}

/// Deletes an object.
pub(crate) async fn delete(
    account: &Account,
    object: &ObjectName,
    conditions: &Conditions,
    until: Instant,
) -> Result<()> {
    if !conditions.is_empty() {
        return Err(unsupported(
            "Swift ignores conditions of a deletion, which would lose data without a word",
        )
        .remedy("delete it without a condition"));
    }
    let store = container(account, &object.bucket)?;
    let done = if object.version.is_empty() {
        // By its name, not as a path: other clients' objects may have names that are none.
        let doing = store.delete_name(&object.key);
        within(until, true, "the object cannot be deleted", doing).await
    } else {
        let path = path(&object.key)?;
        let doing = store.delete_version(&path, &object.version);
        within(until, true, "the version cannot be deleted", doing).await
    };
    match done {
        Err(error) if error.kind() == ErrorKind::NOT_FOUND => {
            // A container that is missing is no object that is gone.
            within(
                until,
                false,
                "the container cannot be asked for",
                store.container(&object.bucket),
            )
            .await
            .map(drop)
        }
        done => done,
    }
}
