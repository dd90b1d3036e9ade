// SPDX-License-Identifier: Apache-2.0
//! Copying large objects of Google Cloud Storage: its JSON API rewrites them a piece each time it is asked, where a copy by one
//! request would take too long, as between locations and storage classes.

use std::time::Instant;

use driver_api::{
    Result,
    ext::{ObjectName, PutOptions},
};
use http::Method;
use serde_json::{Map, Value};

use crate::{
    account::Account,
    call::{Answer, Ask},
    control::gcs::{self, change::Rewritten},
    info::{Found, check_metadata},
    mark,
    wire::{AnswerExt, AskExt, about, nonsense},
};

/// Asks for the rewriting until it is done, or refused: the last request and its answer.
pub(crate) async fn rewrite(
    account: &Account,
    source: (&ObjectName, &Found),
    to: &ObjectName,
    put: &PutOptions,
    generation: Option<&str>,
    until: Instant,
) -> Result<(Ask, Answer)> {
    let (from, found) = source;
    let path = format!(
        "{}/rewriteTo/{}",
        gcs::object_path(&from.bucket, &from.key),
        gcs::object_path(&to.bucket, &to.key)
    );
    let body = resource(account, put)?.to_string();
    let mut token = String::new();
    loop {
        let mut query = vec![
            ("sourceGeneration", found.generation.as_str()),
            ("ifSourceGenerationMatch", found.generation.as_str()),
        ];
        query.extend(generation.map(|generation| ("ifGenerationMatch", generation)));
        if !token.is_empty() {
            query.push(("rewriteToken", token.as_str()));
        }
        let mut ask = gcs::json(account, "copy object", Method::POST, &to.bucket, &path, &query)?
            .typed("application/json", body.clone());
        ask.key = to.key.to_string();
        let answer = account.ask(&ask, until).await?;
        if !answer.status.is_success() {
            return Ok((ask, answer));
        }
        let told: Rewritten = answer.json(&ask)?;
        if told.done {
            return Ok((ask, answer));
        }
        if told.rewrite_token.is_empty() {
            return Err(about(nonsense("a rewriting is neither done nor goes on"), &ask));
        }
        token = told.rewrite_token;
    }
}

/// What is said of the target, as the JSON API has it.
fn resource(account: &Account, put: &PutOptions) -> Result<Value> {
    let mut body = Map::new();
    let content_type = match put.content_type.as_str() {
        "" => "application/octet-stream",
        text => text,
    };
    body.insert("contentType".to_owned(), content_type.into());
    let mut custom = Map::new();
    for pair in &put.metadata {
        let (name, value) = (pair.0.as_str(), Value::from(pair.1.as_str()));
        check_metadata(account.kind, name, &pair.1)?;
        match gcs::change::PLAIN.iter().find(|(header, _)| *header == name) {
            Some((_, field)) => body.insert((*field).to_owned(), value),
            None => custom.insert(name.to_owned(), value),
        };
    }
    custom.insert(mark::name(account.kind).to_owned(), put.mark.as_str().into());
    body.insert("metadata".to_owned(), Value::Object(custom));
    let class = match put.storage_class.as_str() {
        "" => account.config.storage_class.as_deref().unwrap_or_default(),
        class => class,
    };
    if !class.is_empty() {
        body.insert("storageClass".to_owned(), class.into());
    }
    Ok(Value::Object(body))
}
