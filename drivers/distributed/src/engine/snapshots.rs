// SPDX-License-Identifier: Apache-2.0
//! Snapshots that somebody asks for.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use distributed_core::{Event, Failure, NodeId, RequestId, Snapshot};
use driver_api::{Error, ErrorKind, IoBuf, OpContext, Result, Retry};

use super::{
    Engine,
    requests::Unfulfilled,
    waiting::{Reads, Waiting},
};
use crate::{
    client::{Copied, OpenBrick},
    readers::{Reading, write_differences},
};

impl Engine {
    /// The snapshots of which every attachment to come will know, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        Ok(self.status()?.snapshots)
    }

    /// The snapshot of this name.
    pub fn snapshot_named(&self, name: &str) -> Result<Option<Snapshot>> {
        Ok(self.snapshots()?.into_iter().find(|snapshot| snapshot.name == name))
    }

    /// Takes a snapshot: of everything that was acknowledged, and of nothing that is asked for after its end.
    pub async fn snapshot(self: &Arc<Self>, cx: &OpContext, name: &str) -> Result<Snapshot> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let unix_secs = since.map_or(0, |since| since.as_secs());
        let wanted = name.to_owned();
        self.ask(cx, |request| Event::Snapshot { request, name: wanted, unix_secs }).await?;
        self.snapshot_named(name)?.ok_or_else(|| {
            Error::new(ErrorKind::INTERNAL, "a snapshot was taken and is not there")
                .with("volume", &self.volume)
                .with("snapshot", name)
        })
    }

    /// Deletes a snapshot; its space is freed on nodes as they answer.
    pub async fn delete_snapshot(self: &Arc<Self>, cx: &OpContext, number: u32) -> Result<()> {
        self.ask(cx, |request| Event::DeleteSnapshot { request, number }).await
    }

    /// Copies a range of a brick's own snapshot to another brick.
    pub(super) async fn replay(
        &self,
        cx: &OpContext,
        (reading, node): (Reading, NodeId),
        to: &OpenBrick,
        (offset, len): (u64, u32),
    ) -> Copied {
        let node = match self.member(node) {
            Ok(node) => node,
            Err(error) => return Copied::SourceFailed(error),
        };
        let from = (reading, &node, self.base.as_str());
        match self.readers.read(&self.nodes, from, offset, len).await {
            Ok(data) => Copied::Written(write_differences(cx, to, offset, data).await),
            Err(error) => Copied::SourceFailed(error),
        }
    }

    /// No snapshot is replayed any more.
    pub async fn end_readers(&self) {
        self.readers.end(&self.nodes, None).await;
    }

    async fn ask(
        self: &Arc<Self>,
        cx: &OpContext,
        event: impl FnOnce(RequestId) -> Event,
    ) -> Result<()> {
        let request = self.admit(cx, None, IoBuf::empty(), None)?;
        self.run(vec![event(request)], None);
        let mut waiting = Waiting::new(self, Reads::of(request));
        match std::future::poll_fn(|task| waiting.poll_result(task)).await {
            Ok(_) => Ok(()),
            // What was asked for fits; what is the matter may pass.
            Err(Unfulfilled::Failed(Failure::Refused(why))) => {
                Err(Error::new(ErrorKind::UNAVAILABLE, why.to_string())
                    .with("volume", &self.volume)
                    .with_retry(Retry::TEMPORARY)
                    .remedy("try again"))
            }
            Err(other) => Err(other.into_error(&self.volume)),
        }
    }
}
