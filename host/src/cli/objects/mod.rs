// SPDX-License-Identifier: Apache-2.0
//! `novastor object`.

mod crew;
mod direct;
mod facts;
mod get;
mod journal;
mod list;
pub(super) mod names;
mod parts;
mod patience;
mod pieces;
mod progress;
mod put;
mod remove;
mod show;
mod sign;
mod source;
mod store;
mod sums;
mod tags;
mod upload;
mod wire;

use driver_api::{Error, ErrorKind, Result};

use super::{Output, Session, args::objects::ObjectCommand};
use crate::api::objects::types::{CopyObject, ObjectView};
use names::Query;

impl Session {
    pub(super) async fn object(&self, command: ObjectCommand) -> Result<()> {
        match command {
            ObjectCommand::Put(put) => self.put(put).await,
            ObjectCommand::Get(get) => self.get(get).await,
            ObjectCommand::Head { object, version, store } => {
                let path = format!("{}/info", self.store(store).await?.paths.object(&object));
                let path = Query::new(path).maybe("version", version.as_deref()).text();
                self.one(&self.client.get::<ObjectView>(&path).await?)
            }
            ObjectCommand::List(list) => self.list_objects(list).await,
            ObjectCommand::Copy {
                from,
                to,
                create_only,
                if_match,
                source_if_match,
                version,
                store,
            } => {
                let store = self.store(store).await?;
                let path = format!("{}/copy", store.paths.object(&from));
                let path = Query::new(path).maybe("version", version.as_deref()).text();
                let body = CopyObject {
                    mark: Some(self.mark(&store, &to, "")),
                    to_bucket: to.bucket.clone(),
                    to_key: to.key.clone(),
                    source_if_match,
                    if_match,
                    create_only,
                    ..CopyObject::default()
                };
                let copy: ObjectView = self.client.post(&path, &body).await?;
                match self.output {
                    Output::Json => self.one(&copy),
                    Output::Table => self.done(&format!("{to} is a copy of {from}")),
                }
            }
            ObjectCommand::Delete(delete) => self.delete_objects(delete).await,
            ObjectCommand::Tags(command) => self.tags(command).await,
            ObjectCommand::Change { object, facts, store } => {
                let body = facts.in_change()?;
                if body == Default::default() {
                    let why = "nothing is to be changed";
                    return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why)
                        .remedy("novastor object change --help"));
                }
                let path = format!("{}/change", self.store(store).await?.paths.object(&object));
                self.one(&self.client.post::<ObjectView>(&path, &body).await?)
            }
            ObjectCommand::Sign(sign) => self.sign(sign).await,
        }
    }
}
