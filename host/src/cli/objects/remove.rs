// SPDX-License-Identifier: Apache-2.0
//! `novastor object delete`.

use std::collections::BTreeMap;

use driver_api::{Error, ErrorKind, Result};

use super::{
    facts::quoted,
    names::{self, Place, Query},
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
        let mut outcomes = Vec::new();
        for (bucket, keys) in by_bucket {
            let path = store.paths.objects(&bucket);
            for (number, some) in keys.chunks(most).enumerate() {
                let body = DeleteObjects { delete: some.to_vec() };
                let client = self.client.then(&format!("{bucket}.{number}"));
                let answer: DeletedObjects = client.post(&path, &body).await?;
                outcomes.extend(answer.outcomes.into_iter().map(|one| (bucket.clone(), one)));
            }
        }
        self.tell_deleted(outcomes)
    }

    fn tell_deleted(&self, outcomes: Vec<(String, DeletedObject)>) -> Result<()> {
        let all = outcomes.len();
        if self.output == Output::Json {
            let list: Vec<&DeletedObject> = outcomes.iter().map(|(_, one)| one).collect();
            show::json(&list)?;
        }
        let kept: Vec<_> = outcomes.iter().filter(|(_, one)| !one.gone).collect();
        let Some((bucket, first)) = kept.first() else {
            return match self.output {
                Output::Json => Ok(()),
                Output::Table => self.done(&format!("{all} objects are deleted")),
            };
        };
        if self.output == Output::Table {
            for (bucket, one) in &kept {
                let reason = one.reason.as_deref().unwrap_or("no reason was given");
                eprintln!("{bucket}/{} is not deleted: {reason}", one.key);
            }
        }
        let kind = first.code.map_or(ErrorKind::INTERNAL, ErrorKind::from_code);
        let why = format!("{} of {all} objects are not deleted", kept.len());
        Err(Error::new(kind, why)
            .with("first", format!("{bucket}/{}", first.key))
            .remedy("repeat it for these"))
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
