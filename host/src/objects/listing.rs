// SPDX-License-Identifier: Apache-2.0
//! A listing from its beginning to its end: the next page is asked for while the one before is on its way to the client.

use driver_api::{
    Error, ErrorKind, Result,
    ext::{ListPage, ListQuery},
};
use tokio::sync::mpsc;

use super::{SILENCE, Store};
use crate::plugins::Call;

/// A listing that has begun.
#[derive(Debug)]
pub struct Listing {
    /// Its first page.
    pub first: ListPage,
    /// Those after it, in order. After an error nothing comes.
    pub rest: mpsc::Receiver<Result<ListPage>>,
}

/// Asks for one page.
pub async fn page(store: &Store, bucket: String, query: ListQuery) -> Result<ListPage> {
    let listing = store.ask(Call::ListObjects, move |objects, cx| objects.list(cx, &bucket, query));
    listing.await
}

/// Begins a listing of at most `most` entries; `query.limit` bounds its pages. What fails at once is told before the first
/// page.
pub async fn list(
    store: Store,
    bucket: String,
    mut query: ListQuery,
    most: Option<u64>,
) -> Result<Listing> {
    let mut left = most.unwrap_or(u64::MAX);
    let mut first = page(&store, bucket.clone(), bounded(&query, left)).await?;
    left = count(left, &mut first);
    let (sender, rest) = mpsc::channel(1);
    query.after.clear();
    let mut next = first.next.clone();
    if !next.is_empty() {
        tokio::spawn(async move {
            while !next.is_empty() {
                query.page = next.clone();
                // The room first: no more than one page waits for the client.
                let Ok(Ok(slot)) = tokio::time::timeout(SILENCE, sender.reserve()).await else {
                    return;
                };
                let mut asked = page(&store, bucket.clone(), bounded(&query, left)).await;
                if let Ok(page) = &mut asked {
                    left = count(left, page);
                    if page.next == next {
                        let why = "the driver's listing goes round in a circle";
                        asked = Err(Error::new(ErrorKind::INTERNAL, why)
                            .remedy("report this to the driver's author"));
                    }
                }
                next = asked.as_ref().map(|page| page.next.clone()).unwrap_or_default();
                if let Err(error) = &asked {
                    tracing::warn!("a listing that has begun: {error:#}");
                }
                slot.send(asked);
            }
        });
    }
    Ok(Listing { first, rest })
}

/// The query, for no more entries than are wanted.
fn bounded(query: &ListQuery, left: u64) -> ListQuery {
    let limit = u32::try_from(left).unwrap_or(u32::MAX).min(query.limit);
    ListQuery { limit, ..query.clone() }
}

/// What is left to list after a page, which ends the listing if that is nothing.
fn count(left: u64, page: &mut ListPage) -> u64 {
    let left = left.saturating_sub((page.objects.len() + page.prefixes.len()) as u64);
    if left == 0 {
        page.next.clear();
    }
    left
}
