// SPDX-License-Identifier: Apache-2.0

//! Copies inside the server.
//!
//! A large object is copied segment by segment into segments of its own: a copied manifest would share them, and
//! deleting either object would destroy the other. Swift cannot copy on condition that there is no target (it applies
//! `If-None-Match` to the source, and answers 304): a create-only copy is a new object of one copied segment, whose
//! manifest is put on that condition; a small one is read and put.

use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::{HeaderMap, Method};
use object_store::path::Path;
use object_store::{
    Attributes, CopyMode, CopyOptions, GetOptions, ObjectStore, PutMode, PutOptions,
};

use crate::attributes::{self, UPLOAD};
use crate::client::Call;
use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::expiry;
use crate::manifest::Segment;
use crate::store::Swift;

/// An object up to this size is copied through this host if the copy must not replace another.
const SMALL: u64 = 8 << 20;
/// Segments copied at once.
const AT_ONCE: usize = 4;

impl Swift {
    pub(crate) async fn copy(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> Result<(), object_store::Error> {
        let create = options.mode == CopyMode::Create;
        let head = self.newest(from).await?;
        let size: u64 = head
            .get("content-length")
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .unwrap_or(u64::MAX);
        if from == to {
            let failure = self
                .call(Method::PUT, to)
                .failure(FailureKind::AlreadyExists, "it is its own source");
            return if create { Err(failure.into()) } else { Ok(()) };
        }
        if create {
            self.ensure_creation().await?;
        }
        if attributes::is_large(&head) {
            let segments = self.manifest(from, &head).await?;
            return Ok(self.copy_segments(to, &head, segments, create).await?);
        }
        if create && size <= SMALL {
            return self.copy_through(from, to).await;
        }
        let most = self.client().capabilities().await?.max_file_size;
        if size > most {
            let cause = format!(
                "{size} bytes are more than one object may have ({most}), and it has no static manifest"
            );
            let failure = self.call(Method::PUT, to).failure(FailureKind::Full, cause);
            return Err(failure.remedy("download it and upload it in parts").into());
        }
        if create {
            let etag = attributes::header_etag(&head).unwrap_or_default();
            let whole = Segment::new(self.container_name(), from.as_ref(), &etag, size);
            return Ok(self.copy_segments(to, &head, vec![whole], create).await?);
        }
        let replaced = self.replaced(to).await?;
        let call = self.copy_call(self.call(Method::PUT, to), self.container_name(), from.as_ref());
        let answer =
            self.client().send(&call.allowance(self.client().config.transfer_time(size))).await?;
        // The ETag of a dynamic large object is not that of its copy.
        if !attributes::is_manifest(&head)
            && attributes::header_etag(&answer.headers) != attributes::header_etag(&head)
        {
            let failure = self
                .call(Method::PUT, to)
                .failure(FailureKind::Corrupt, "the copy differs from its source");
            return Err(failure
                .remedy("the source was replaced meanwhile, or it is damaged: compare them")
                .into());
        }
        self.forget(to, replaced).await;
        Ok(())
    }

    fn copy_call(&self, call: Call, container: &str, name: &str) -> Call {
        call.header("X-Copy-From", format!("/{}/{}", encode::name(container), encode::key(name)))
            .payload("")
    }

    async fn copy_through(&self, from: &Path, to: &Path) -> Result<(), object_store::Error> {
        let read = self.get_opts(from, GetOptions::default()).await?;
        let attributes: Attributes = read.attributes.clone();
        let bytes = read.bytes().await?;
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        self.put_opts(to, bytes.into(), options).await?;
        Ok(())
    }

    /// Copies `segments` to new ones of `to`, and puts a manifest of those.
    async fn copy_segments(
        &self,
        to: &Path,
        head: &HeaderMap,
        segments: Vec<Segment>,
        create: bool,
    ) -> Result<(), Failure> {
        let mut headers = attributes::kept(head);
        headers.remove(UPLOAD);
        headers.remove(attributes::MARK);
        headers.remove("x-object-manifest");
        headers.remove(attributes::LARGE_META);
        if let Some(value) = head.get("content-type") {
            headers.insert("content-type", value.clone());
        }
        let expires = expiry::absolute(&mut headers);
        let id = self.copy_id(to, expires)?;
        let directory = self.segments_of(to.as_ref(), &id);
        self.ensure_segments().await?;
        let copies = segments.into_iter().enumerate().map(|(index, segment)| {
            let name = format!("{directory}{index:05}");
            async move {
                let Some((container, source)) = segment.place().filter(|_| segment.range.is_none())
                else {
                    let cause = format!(
                        "its manifest names a part of {}, which cannot be copied",
                        segment.path
                    );
                    return Err(self
                        .call(Method::PUT, to)
                        .failure(FailureKind::Unsupported, cause));
                };
                let call = Call::object(Method::PUT, self.segments_name(), &name);
                let call =
                    self.copy_call(call, container, source).header("X-Fresh-Metadata", "true");
                let call = match expires {
                    Some(at) => call.header(attributes::DELETE_AT, at.to_string()),
                    None => call,
                };
                let time = self.client().config.transfer_time(segment.size_bytes);
                let answer = self.client().send(&call.clone().allowance(time)).await?;
                if attributes::header_etag(&answer.headers).as_deref() != Some(&segment.etag) {
                    return Err(call.failure(
                        FailureKind::Corrupt,
                        "the copied segment differs from its source",
                    ));
                }
                Ok(Segment::new(self.segments_name(), &name, &segment.etag, segment.size_bytes))
            }
        });
        let copied: Result<Vec<Segment>, Failure> =
            stream::iter(copies).buffered(AT_ONCE).try_collect().await;
        let made = match copied {
            Ok(copied) => self.put_copied(to, &id, headers, copied, create).await,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &made
            && !failure.outcome_unknown()
        {
            let _left_to_sweep = self.clear(&directory).await;
        }
        made
    }

    async fn put_copied(
        &self,
        to: &Path,
        id: &str,
        headers: HeaderMap,
        copied: Vec<Segment>,
        create: bool,
    ) -> Result<(), Failure> {
        let (top, _) = self.nest(to, id, copied).await?;
        self.put_manifest(to, id, headers, &top, create).await.map(|_| ())
    }
}
