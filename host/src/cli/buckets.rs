// SPDX-License-Identifier: Apache-2.0
//! `novastor bucket`.

use std::{
    io::Read,
    path::Path,
    time::{Duration, SystemTime},
};

use driver_api::{Error, ErrorKind, Result};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::Value;

use super::{
    Session,
    args::{
        Output,
        objects::{BucketCommand, LifecycleCommand, OnOff, PolicyCommand, Store},
    },
    client::whole,
    objects::names::{Paths, Place, Query},
    show,
};
use crate::api::objects::types::{
    BucketDeleted, BucketView, CreateBucket, Lifecycle, SetVersioning, UploadView, UploadsPage,
};

/// The largest file of rules or of a policy.
const LARGEST: u64 = 1 << 20;
const RULE_FIELDS: [&str; 8] = [
    "id",
    "enabled",
    "prefix",
    "expire_days",
    "expire_noncurrent_days",
    "abort_upload_days",
    "transition_days",
    "transition_class",
];

impl Session {
    pub(super) async fn bucket(&self, command: BucketCommand) -> Result<()> {
        let client = &self.client;
        match command {
            BucketCommand::Create { name, region, versioning, options, store } => {
                let path = self.store(store).await?.paths.buckets();
                let options = options.into_iter().collect();
                let body = CreateBucket { name, region, versioning, options };
                self.one(&client.post::<BucketView>(&path, &body).await?)
            }
            BucketCommand::Delete { name, with_objects, store, waiting } => {
                let path = Query::new(self.store(store).await?.paths.bucket(&name));
                let path = match with_objects {
                    true => {
                        path.and("objects", "true").and("versions", "true").and("uploads", "true")
                    }
                    false => path,
                };
                let gone = client.remove::<BucketDeleted>(&path.text()).await;
                let gone = gone.map_err(|error| match error.kind() {
                    ErrorKind::IN_USE if !with_objects => {
                        error.remedy(format!("novastor bucket delete {name} --with-objects"))
                    }
                    _ => error,
                })?;
                match gone.job {
                    Some(job) => self.follow(job, waiting).await,
                    None => self.done(&format!("bucket {name} is deleted")),
                }
            }
            BucketCommand::List { store } => {
                let path = self.store(store).await?.paths.buckets();
                show::list(self.output, &client.get::<Vec<BucketView>>(&path).await?)
            }
            BucketCommand::Show { name, store } => {
                let path = self.store(store).await?.paths.bucket(&name);
                self.one(&client.get::<BucketView>(&path).await?)
            }
            BucketCommand::Versioning { name, state, store } => {
                let path = format!("{}/versioning", self.store(store).await?.paths.bucket(&name));
                let body = SetVersioning { on: state == OnOff::On };
                self.one(&client.set::<BucketView>(&path, &body).await?)
            }
            BucketCommand::Policy(command) => self.policy(command).await,
            BucketCommand::Lifecycle(command) => self.lifecycle(command).await,
            BucketCommand::Uploads { name, prefix, older_than, store } => {
                let paths = self.store(store).await?.paths;
                let mut all = self.uploads(&paths, &name, &prefix).await?;
                if let Some(age) = older_than {
                    all.retain(|upload| is_older(upload, age));
                }
                show::list(self.output, &all)
            }
            BucketCommand::Abort { name, key, id, older_than, prefix, store } => {
                let paths = self.store(store).await?.paths;
                match (key, id, older_than) {
                    (Some(key), Some(id), _) => {
                        let place = Place { bucket: name, key };
                        client.delete(&paths.upload(&place, &id, "").text()).await?;
                        self.done(&format!("upload {id} of {place} is given up"))
                    }
                    (_, _, age) => {
                        self.abort_older(&paths, &name, &prefix, age.unwrap_or(Duration::MAX)).await
                    }
                }
            }
        }
    }

    async fn uploads(&self, paths: &Paths, bucket: &str, prefix: &str) -> Result<Vec<UploadView>> {
        let path = paths.uploads(bucket);
        let (mut all, mut page) = (Vec::new(), None::<String>);
        loop {
            let query = Query::new(path.clone()).and("prefix", prefix);
            let got: UploadsPage =
                self.client.get(&query.maybe("page", page.as_deref()).text()).await?;
            all.extend(got.uploads);
            if got.next.is_none() {
                return Ok(all);
            }
            if got.next == page {
                return Err(Error::new(ErrorKind::INTERNAL, "the listing goes round in a circle"));
            }
            page = got.next;
        }
    }

    /// Gives up all uploads that were begun longer ago. One that cannot be given up does not keep the others.
    async fn abort_older(
        &self,
        paths: &Paths,
        bucket: &str,
        prefix: &str,
        age: Duration,
    ) -> Result<()> {
        let all = self.uploads(paths, bucket, prefix).await?;
        let unknown = all.iter().filter(|upload| upload.started_ms.is_none()).count();
        let (mut gone, mut failed) = (Vec::new(), None::<Error>);
        let found = all.len();
        // Giving up twice is giving up once.
        let client = self.client.asking();
        for upload in all.into_iter().filter(|upload| is_older(upload, age)) {
            let place = Place { bucket: bucket.to_owned(), key: upload.key.clone() };
            match client.delete(&paths.upload(&place, &upload.id, "").text()).await {
                Ok(()) => gone.push(upload),
                Err(error) => {
                    failed.get_or_insert(error.with("upload", &upload.id).with("key", &upload.key));
                }
            }
        }
        if let Some(error) = failed {
            return Err(error.with("given up", gone.len()).with("found", found));
        }
        if self.output == Output::Json {
            return show::list(self.output, &gone);
        }
        let mut text = format!("{} of {found} unfinished uploads are given up", gone.len());
        if unknown > 0 {
            text.push_str(&format!(
                "; of {unknown} the store does not say when they were begun: novastor bucket abort {bucket} KEY ID"
            ));
        }
        self.done(&text)
    }

    async fn policy(&self, command: PolicyCommand) -> Result<()> {
        let of = async |name: &str, store: Store| -> Result<String> {
            Ok(format!("{}/policy", self.store(store).await?.paths.bucket(name)))
        };
        match command {
            PolicyCommand::Get { name, store } => {
                let response = self.client.stream(&of(&name, store).await?).await?;
                let text = response.into_body().collect().await.map_err(|error| {
                    Error::new(ErrorKind::UNAVAILABLE, "the host's answer broke off")
                        .caused_by(&error)
                })?;
                let text = text.to_bytes();
                show::raw(&text)?;
                show::raw(if text.ends_with(b"\n") { b"" } else { b"\n" })
            }
            PolicyCommand::Set { name, file, store } => {
                let text = read(&file)?;
                let path = of(&name, store).await?;
                self.client.send(Method::PUT, &path, whole(text.into_bytes())).await?;
                self.done(&format!("bucket {name} has this policy"))
            }
            PolicyCommand::Remove { name, store } => {
                self.client.delete(&of(&name, store).await?).await?;
                self.done(&format!("bucket {name} has no policy"))
            }
        }
    }

    async fn lifecycle(&self, command: LifecycleCommand) -> Result<()> {
        let of = async |name: &str, store: Store| -> Result<String> {
            Ok(format!("{}/lifecycle", self.store(store).await?.paths.bucket(name)))
        };
        match command {
            LifecycleCommand::Get { name, store } => {
                self.rules(&self.client.get(&of(&name, store).await?).await?)
            }
            LifecycleCommand::Set { name, file, store } => {
                let rules =
                    rules(&read(&file)?).map_err(|error| error.with("file", file.display()))?;
                self.rules(&self.client.set(&of(&name, store).await?, &rules).await?)
            }
            LifecycleCommand::Remove { name, store } => {
                self.client.delete(&of(&name, store).await?).await?;
                self.done(&format!("bucket {name} has no lifecycle rules"))
            }
        }
    }

    /// As JSON just what `lifecycle set` takes.
    fn rules(&self, lifecycle: &Lifecycle) -> Result<()> {
        match self.output {
            Output::Json => show::json(lifecycle),
            Output::Table => show::list(self.output, &lifecycle.rules),
        }
    }
}

/// Whether an upload was begun longer ago. One whose begin is not known is not.
fn is_older(upload: &UploadView, age: Duration) -> bool {
    let begun = upload.started_ms.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    let limit = SystemTime::now().checked_sub(age);
    begun.zip(limit).is_some_and(|(begun, limit)| begun < limit)
}

fn read(file: &Path) -> Result<String> {
    let failed = |error: std::io::Error| {
        Error::from_io("the file cannot be read", &error).with("file", file.display())
    };
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text)),
    };
    read.map_err(failed)?;
    if text.len() as u64 > LARGEST {
        return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "the file has more than 1 MiB")
            .with("file", file.display()));
    }
    Ok(text)
}

/// The rules of a file. Every field that is unknown is named, and none is left out in silence.
fn rules(text: &str) -> Result<Lifecycle> {
    let wrong = |why: String| {
        Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
            .remedy("novastor bucket lifecycle set --help shows the rules"))
    };
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return wrong(format!("the file is not JSON: {error}")),
    };
    let (Some(top), Some(list)) = (value.as_object(), value["rules"].as_array()) else {
        return wrong("the file is not of the form {\"rules\": [...]}".to_owned());
    };
    let mut unknown: Vec<String> = top.keys().filter(|name| *name != "rules").cloned().collect();
    for (number, rule) in list.iter().enumerate() {
        let Some(rule) = rule.as_object() else {
            return wrong(format!("rules[{number}] is no object"));
        };
        let strange = rule.keys().filter(|name| !RULE_FIELDS.contains(&name.as_str()));
        unknown.extend(strange.map(|name| format!("rules[{number}].{name}")));
    }
    if !unknown.is_empty() {
        return wrong(format!("unknown fields: {}", unknown.join(", ")));
    }
    serde_json::from_value(value).or_else(|error| wrong(format!("the rules are wrong: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unknown_field_is_named() {
        let text =
            r#"{"rules": [{"id": "a", "expire_dayz": 3}, {"expire_days": 1, "if": 1}], "x": 1}"#;
        let error = rules(text).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT);
        for name in ["rules[0].expire_dayz", "rules[1].if", "x"] {
            assert!(error.message().contains(name), "{error}");
        }
        for bad in ["", "[]", "{}", r#"{"rules": 1}"#, r#"{"rules": [1]}"#] {
            assert!(rules(bad).is_err(), "{bad}");
        }
        for bad in [r#"{"rules": [{"expire_days": -1}]}"#, r#"{"rules": [{"expire_days": "3"}]}"#] {
            assert!(rules(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_known_fields_are_taken() {
        let text = r#"{"rules": [{"id": "a", "enabled": false, "prefix": "p/", "expire_days": 1,
            "expire_noncurrent_days": 2, "abort_upload_days": 3, "transition_days": 4, "transition_class": "COLD"}]}"#;
        let read = rules(text).unwrap();
        let again = serde_json::to_string(&read).unwrap();
        assert_eq!(rules(&again).unwrap(), read);
        assert!(RULE_FIELDS.iter().all(|name| again.contains(&format!("\"{name}\""))), "{again}");
        assert_eq!(rules(r#"{"rules": []}"#).unwrap().rules.len(), 0);
    }
}
