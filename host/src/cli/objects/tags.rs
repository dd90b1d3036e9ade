// SPDX-License-Identifier: Apache-2.0
//! `novastor object tags`.

use driver_api::{Error, ErrorKind, Result};

use super::names::{Place, Query};
use crate::{
    api::objects::types::ObjectTags,
    cli::{
        Output, Session,
        args::objects::{Store, TagsCommand},
    },
};

impl Session {
    pub(super) async fn tags(&self, command: TagsCommand) -> Result<()> {
        match command {
            TagsCommand::Get { object, version, store } => {
                let path = format!("{}/tags", self.store(store).await?.paths.object(&object));
                let path = Query::new(path).maybe("version", version.as_deref()).text();
                self.one(&self.client.get::<ObjectTags>(&path).await?)
            }
            TagsCommand::Set { object, tags, store } => {
                let count = tags.len();
                let body = ObjectTags { tags: tags.into_iter().collect() };
                if body.tags.len() != count {
                    let why = "a tag is given twice";
                    return Err(Error::new(ErrorKind::INVALID_ARGUMENT, why));
                }
                self.set_tags(object, store, body).await
            }
            TagsCommand::Clear { object, store } => {
                self.set_tags(object, store, ObjectTags::default()).await
            }
        }
    }

    async fn set_tags(&self, object: Place, store: Store, body: ObjectTags) -> Result<()> {
        let path = format!("{}/tags", self.store(store).await?.paths.object(&object));
        let _: serde_json::Value = self.client.set(&path, &body).await?;
        match self.output {
            Output::Json => self.one(&body),
            Output::Table if body.tags.is_empty() => self.done(&format!("{object} has no tags")),
            Output::Table => self.one(&body),
        }
    }
}
