// SPDX-License-Identifier: Apache-2.0
//! `novastor object delete`.

use std::collections::BTreeMap;

use driver_api::{Error, ErrorKind, Result};

use super::{
    facts::quoted,
    names::{self, Place, Query},
    show::printable,
    store::Chosen,
    wire::{Ask, Wire},
};
use crate::{
    api::{
        objects::types::{DeleteObjects, DeletedObject, DeletedObjects, VersionedKey},
        types::JobView,
    },
    cli::{
        Output, Session,
        args::{Waiting, objects::Delete},
        client::whole,
        show,
    },
};

fn refused(why: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, why).remedy(remedy)
}

/// BUCKET/PREFIX, BUCKET/ or BUCKET.
fn bucket_and_prefix(text: &str) -> Result<(&str, &str)> {
    match text.split_once('/').unwrap_or((text, "")) {
        ("", _) => {
            Err(refused("it begins with the bucket's name, not with /", "name BUCKET/PREFIX"))
        }
        both => Ok(both),
    }
}

/// What became of an object that was to be deleted, and where it is.
#[derive(serde::Serialize)]
struct Told {
    bucket: String,
    #[serde(flatten)]
    outcome: DeletedObject,
}

impl Told {
    fn is_unknown(&self) -> bool {
        self.outcome.code == Some(ErrorKind::TIMED_OUT.code())
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.bucket, printable(&self.outcome.key))
    }
}

fn stays(asked: &VersionedKey, error: &Error) -> DeletedObject {
    DeletedObject {
        key: asked.key.clone(),
        version: asked.version.clone(),
        gone: false,
        kind: Some(error.kind().name().to_owned()),
        code: Some(error.kind().code()),
        reason: Some(error.to_string()),
    }
}

impl Session {
    pub(super) async fn delete_objects(&self, delete: Delete) -> Result<()> {
        if delete.recursive {
            return self.delete_prefix(delete).await;
        }
        let places: Vec<Place> = delete
            .objects
            .iter()
            .map(|text| {
                names::place(text).map_err(|why| {
                    let why = format!("`{text}`: {why}");
                    refused(&why, "name BUCKET/KEY; --recursive deletes all keys that begin so")
                })
            })
            .collect::<Result<_>>()?;
        let store = self.store(delete.store).await?;
        if let [place] = places.as_slice() {
            let conditions = (delete.version.as_deref(), delete.if_match.as_deref());
            return self.delete_one(&store, place, conditions).await;
        }
        if delete.version.is_some() || delete.if_match.is_some() {
            return Err(refused(
                "a version and an ETag belong to one object",
                "delete that object by a command of its own",
            ));
        }
        self.delete_several(&store, places).await
    }

    async fn delete_one(
        &self,
        store: &Chosen,
        place: &Place,
        (version, if_match): (Option<&str>, Option<&str>),
    ) -> Result<()> {
        let path = Query::new(store.paths.object(place)).maybe("version", version).text();
        let mut ask = Ask::new(hyper::Method::DELETE, path);
        if let Some(etag) = if_match {
            ask = ask.with(hyper::header::IF_MATCH, quoted(etag));
        }
        if let Some(key) = self.client.key() {
            ask = ask.once(key.to_owned());
        }
        // Nothing proves whose deletion it was: one whose outcome is unknown is told, not repeated.
        Wire::new(&self.client).send(&ask, whole(Vec::new())).await.map_err(|error| match error
            .kind()
        {
            ErrorKind::TIMED_OUT => {
                let again = format!("see whether it is there: novastor object head {place}");
                error.remedy(again)
            }
            _ => error,
        })?;
        self.done(&format!("{place} is deleted"))
    }

    async fn delete_several(&self, store: &Chosen, places: Vec<Place>) -> Result<()> {
        let mut by_bucket: BTreeMap<String, Vec<VersionedKey>> = BTreeMap::new();
        for Place { bucket, key } in places {
            let keys = by_bucket.entry(bucket).or_default();
            keys.push(VersionedKey { key, version: None });
        }
        let most = usize::try_from(store.features.max_bulk_delete).unwrap_or(1).max(1);
        let mut told = Vec::new();
        for (bucket, keys) in by_bucket {
            let path = store.paths.objects(&bucket);
            for (number, some) in keys.chunks(most).enumerate() {
                let ask = Ask::new(hyper::Method::POST, path.as_str());
                let ask = match self.client.then(&format!("{bucket}.{number}")).key() {
                    Some(key) => ask.once(key.to_owned()),
                    None => ask,
                };
                let body = DeleteObjects { delete: some.to_vec() };
                let answer: Result<DeletedObjects> = Wire::new(&self.client).post(ask, &body).await;
                // What became of the others is told all the same.
                let outcomes = match answer {
                    Ok(answer) => answer.outcomes,
                    Err(error) => some.iter().map(|asked| stays(asked, &error)).collect(),
                };
                told.extend(
                    outcomes.into_iter().map(|outcome| Told { bucket: bucket.clone(), outcome }),
                );
            }
        }
        self.tell_deleted(&told)
    }

    fn tell_deleted(&self, told: &[Told]) -> Result<()> {
        let all = told.len();
        if self.output == Output::Json {
            show::json(&told)?;
        }
        let kept: Vec<_> = told.iter().filter(|one| !one.outcome.gone).collect();
        let Some(first) = kept.first() else {
            return match self.output {
                Output::Json => Ok(()),
                Output::Table => self.done(&format!("{all} objects are deleted")),
            };
        };
        if self.output == Output::Table {
            for one in &kept {
                let reason = one.outcome.reason.as_deref().unwrap_or("no reason was given");
                match one.is_unknown() {
                    true => eprintln!("whether {one} is deleted is unknown: {reason}"),
                    false => eprintln!("{one} is not deleted: {reason}"),
                }
            }
        }
        let kind = first.outcome.code.map_or(ErrorKind::INTERNAL, ErrorKind::from_code);
        let unknown = kept.iter().filter(|one| one.is_unknown()).count();
        let why = match (unknown, kept.len() - unknown) {
            (0, kept) => format!("{kept} of {all} objects are not deleted"),
            (unknown, 0) => format!("whether {unknown} of {all} objects are deleted is unknown"),
            (unknown, kept) => format!(
                "{kept} of {all} objects are not deleted, and of {unknown} more that is unknown"
            ),
        };
        Err(Error::new(kind, why).with("first", first).remedy("repeat it for these"))
    }

    async fn delete_prefix(&self, delete: Delete) -> Result<()> {
        let [text] = delete.objects.as_slice() else {
            return Err(refused("--recursive takes one BUCKET/PREFIX", "repeat it for each"));
        };
        let (bucket, prefix) = bucket_and_prefix(text)?;
        let store = self.store(delete.store).await?;
        let path = Query::new(store.paths.objects(bucket)).and("prefix", prefix).text();
        let ask = Ask::new(hyper::Method::DELETE, path);
        let ask = match self.client.key() {
            Some(key) => ask.once(key.to_owned()),
            None => ask,
        };
        let mut wire = Wire::new(&self.client);
        let (job, _) = wire.answer::<JobView>(&ask, whole(Vec::new())).await?;
        self.follow(job, Waiting { no_wait: false }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_bucket_is_said_by_its_name() {
        assert_eq!(bucket_and_prefix("b/logs/").unwrap(), ("b", "logs/"));
        assert_eq!(bucket_and_prefix("b/").unwrap(), ("b", ""));
        assert_eq!(bucket_and_prefix("b").unwrap(), ("b", ""));
        assert!(bucket_and_prefix("/x").is_err());
    }
}
