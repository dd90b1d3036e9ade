// SPDX-License-Identifier: Apache-2.0
//! Many deletions: as many at once as the store takes, or one by one beside each other.

use driver_api::{
    Error, ErrorKind, RVec,
    ext::{Conditions, DeleteOutcome, ObjectAbilities, ObjectName},
};
use tokio::task::JoinSet;

use super::Store;
use crate::plugins::Call;

/// Deletions that are under way at once where the store takes them one by one.
const AT_ONCE: usize = 16;

fn gone() -> DeleteOutcome {
    DeleteOutcome {
        gone: true,
        kind: ErrorKind::from_code(0),
        reason: Default::default(),
        reserved: [0; 2],
    }
}

fn stays(error: &Error) -> DeleteOutcome {
    DeleteOutcome {
        gone: false,
        kind: error.kind(),
        reason: error.message().into(),
        reserved: [0; 2],
    }
}

/// Deletes objects of one bucket, and gives one outcome for each, in their order.
pub async fn delete_all(
    store: &Store,
    bucket: &str,
    objects: Vec<ObjectName>,
) -> Vec<DeleteOutcome> {
    let features = store.features();
    let most = features.max_bulk_delete as usize;
    if most == 0 || !features.abilities.has(ObjectAbilities::BULK_DELETE) {
        return one_by_one(store, objects).await;
    }
    let mut outcomes = Vec::with_capacity(objects.len());
    for chunk in objects.chunks(most) {
        outcomes.extend(at_once(store, bucket, chunk).await);
    }
    outcomes
}

async fn at_once(store: &Store, bucket: &str, chunk: &[ObjectName]) -> Vec<DeleteOutcome> {
    let (of, names) = (bucket.to_owned(), RVec::from(chunk.to_vec()));
    let deleting =
        store.ask(Call::DeleteObjects, move |objects, cx| objects.delete_many(cx, &of, names));
    match deleting.await {
        Ok(outcomes) if outcomes.len() == chunk.len() => outcomes.into(),
        Ok(outcomes) => {
            let why = format!("the driver told {} outcomes of {}", outcomes.len(), chunk.len());
            let error = Error::new(ErrorKind::INTERNAL, why);
            vec![stays(&error); chunk.len()]
        }
        Err(error) => vec![stays(&error); chunk.len()],
    }
}

async fn one_by_one(store: &Store, objects: Vec<ObjectName>) -> Vec<DeleteOutcome> {
    let unknown = Error::new(ErrorKind::INTERNAL, "its deletion ended in a panic");
    let mut outcomes = vec![stays(&unknown); objects.len()];
    let (mut deleting, mut waiting) = (JoinSet::new(), objects.into_iter().enumerate());
    loop {
        while deleting.len() < AT_ONCE
            && let Some((place, name)) = waiting.next()
        {
            let store = store.clone();
            deleting.spawn(async move {
                let deleted = store.ask(Call::DeleteObject, move |objects, cx| {
                    objects.delete(cx, name, Conditions::default())
                });
                (place, deleted.await)
            });
        }
        match deleting.join_next().await {
            None => return outcomes,
            Some(Ok((place, deleted))) => {
                outcomes[place] = deleted.map_or_else(|error| stays(&error), |()| gone());
            }
            // Its outcome stays as it was written down above.
            Some(Err(_)) => {}
        }
    }
}
