// SPDX-License-Identifier: Apache-2.0
//! Buckets: their life, and what they do with their objects.

use axum::{extract::State, http::header, response::IntoResponse};
use driver_api::{Error, ErrorKind, RVec, Result, ext::BucketSpec};

use super::{
    super::{Answered, Api, Json},
    Answer, Asked, At, BucketPath,
    types::{
        BucketDeleted, BucketView, CreateBucket, DeleteBucket, Lifecycle, ObjectFeaturesView,
        SetVersioning,
    },
    views,
};
use crate::{jobs::Emptying, objects::Store, plugins::Call};

pub(super) async fn features(
    State(api): State<Api>,
    At(backend): At<String>,
) -> Answer<ObjectFeaturesView> {
    let store = api.objects().store(&backend)?;
    Ok(axum::Json(views::features(store.name(), store.features())))
}

pub(super) async fn list(
    State(api): State<Api>,
    At(backend): At<String>,
) -> Answer<Vec<BucketView>> {
    let store = api.objects().store(&backend)?;
    let buckets = store.ask(Call::Buckets, |objects, cx| objects.buckets(cx)).await?;
    Ok(axum::Json(buckets.into_iter().map(Into::into).collect()))
}

pub(super) async fn create(
    State(api): State<Api>,
    At(backend): At<String>,
    Json(body): Json<CreateBucket>,
) -> Answer<BucketView> {
    let store = api.objects().store(&backend)?;
    let spec = BucketSpec {
        region: body.region.unwrap_or_default().into(),
        versioning: body.versioning,
        options: views::pairs(body.options),
        ..BucketSpec::new(&body.name)
    };
    let creating = store.ask(Call::CreateBucket, |objects, cx| objects.create_bucket(cx, spec));
    Ok(axum::Json(creating.await?.into()))
}

pub(super) async fn show(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
) -> Answer<BucketView> {
    let store = api.objects().store(&backend)?;
    let showing = store.ask(Call::ShowBucket, move |objects, cx| objects.bucket(cx, &bucket));
    Ok(axum::Json(showing.await?.into()))
}

pub(super) async fn delete(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Asked(consent): Asked<DeleteBucket>,
) -> Answer<BucketDeleted> {
    let store = api.objects().store(&backend)?;
    if consent == DeleteBucket::default() {
        store
            .ask(Call::DeleteBucket, move |objects, cx| objects.delete_bucket(cx, &bucket))
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::IN_USE if error.remedy_text().is_empty() => error.remedy(
                    "consent to what goes with it: objects=true, versions=true, uploads=true",
                ),
                _ => error,
            })?;
        return Ok(axum::Json(BucketDeleted { job: None }));
    }
    let emptying = Emptying {
        backend: store.name().to_owned(),
        bucket,
        prefix: String::new(),
        objects: consent.objects,
        versions: consent.versions,
        uploads: consent.uploads,
        delete_bucket: true,
        ..Emptying::default()
    };
    let job = api.replicas.empty(store, emptying).await?;
    Ok(axum::Json(BucketDeleted { job: Some(job.into()) }))
}

pub(super) async fn set_versioning(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Json(body): Json<SetVersioning>,
) -> Answer<BucketView> {
    let store = api.objects().store(&backend)?;
    let setting = store
        .ask(Call::SetVersioning, move |objects, cx| objects.set_versioning(cx, &bucket, body.on));
    Ok(axum::Json(setting.await?.into()))
}

/// The policy as the store has it, in its own JSON.
pub(super) async fn policy(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
) -> Answered<impl IntoResponse> {
    let store = api.objects().store(&backend)?;
    let of = bucket.clone();
    let policy = store.ask(Call::Policy, move |objects, cx| objects.policy(cx, &of)).await?;
    if policy.is_empty() {
        let why = format!("bucket `{bucket}` has no policy");
        return Err(Error::new(ErrorKind::NOT_FOUND, why)
            .remedy(format!("novastor bucket policy set {bucket} FILE"))
            .into());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], policy.into_string()))
}

async fn put_policy(store: Store, bucket: String, policy: String) -> Result<()> {
    let setting =
        store.ask(Call::SetPolicy, move |objects, cx| objects.set_policy(cx, &bucket, &policy));
    setting.await
}

pub(super) async fn set_policy(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    policy: String,
) -> Answer<()> {
    if policy.trim().is_empty() {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the policy is empty")
            .remedy(format!("to remove it: novastor bucket policy remove {bucket}"))
            .into());
    }
    put_policy(api.objects().store(&backend)?, bucket, policy).await?;
    Ok(axum::Json(()))
}

pub(super) async fn remove_policy(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
) -> Answer<()> {
    put_policy(api.objects().store(&backend)?, bucket, String::new()).await?;
    Ok(axum::Json(()))
}

pub(super) async fn lifecycle(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
) -> Answer<Lifecycle> {
    let store = api.objects().store(&backend)?;
    let asking = store.ask(Call::Lifecycle, move |objects, cx| objects.lifecycle(cx, &bucket));
    let rules = asking.await?.into_iter().map(Into::into).collect();
    Ok(axum::Json(Lifecycle { rules }))
}

async fn put_lifecycle(store: Store, bucket: String, body: Lifecycle) -> Result<Lifecycle> {
    let rules: RVec<_> = body.rules.into_iter().map(Into::into).collect();
    let setting =
        store.ask(Call::SetLifecycle, move |objects, cx| objects.set_lifecycle(cx, &bucket, rules));
    let rules = setting.await?.into_iter().map(Into::into).collect();
    Ok(Lifecycle { rules })
}

pub(super) async fn set_lifecycle(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
    Json(body): Json<Lifecycle>,
) -> Answer<Lifecycle> {
    for (number, rule) in body.rules.iter().enumerate() {
        if let Some(field) = rule.says_nothing() {
            let why = format!("rules[{number}].{field} says nothing");
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                .remedy("days count from 1; leave out what is not wanted")
                .into());
        }
    }
    if body.rules.is_empty() {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "there are no rules")
            .remedy(format!("to remove all: novastor bucket lifecycle remove {bucket}"))
            .into());
    }
    let store = api.objects().store(&backend)?;
    Ok(axum::Json(put_lifecycle(store, bucket, body).await?))
}

pub(super) async fn remove_lifecycle(
    State(api): State<Api>,
    At((backend, bucket)): At<BucketPath>,
) -> Answer<()> {
    let store = api.objects().store(&backend)?;
    put_lifecycle(store, bucket, Lifecycle::default()).await?;
    Ok(axum::Json(()))
}
