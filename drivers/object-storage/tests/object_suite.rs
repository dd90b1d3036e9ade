// SPDX-License-Identifier: Apache-2.0
//! object_store's own suite on buckets as this driver opens them. `tests/services/object with` starts the stores.

mod support;

use object_store::integration::*;
use support::Stage;

async fn suite(store: &str, updates: bool, copies_create_only: bool) {
    let stage = Stage::new(store).await;
    if store == "gcs" {
        // The suite reads the generation before the last one.
        stage.objects.set_versioning(&support::cx(), &stage.bucket, true).await.expect("versions");
    }
    let bucket = stage.backend.bucket_store(&stage.bucket).expect("a bucket");
    let objects = bucket.objects.as_ref();
    put_get_delete_list(objects).await;
    get_opts(objects).await;
    put_opts(objects, updates).await;
    list_uses_directories_correctly(objects).await;
    list_with_delimiter(objects).await;
    list_with_offset_exclusivity(objects).await;
    rename_and_copy(objects).await;
    copy_rename_nonexistent_object(objects).await;
    if copies_create_only {
        copy_if_not_exists(objects).await;
    }
    stream_get(objects).await;
    multipart(objects, bucket.uploads.as_ref()).await;
    multipart_out_of_order(objects).await;
    list_paginated(objects, bucket.pages.as_ref()).await;
}

macro_rules! on {
    ($($store:ident: $updates:literal $copies:literal;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs the servers of `tests/services/object with`"]
        async fn $store() {
            suite(stringify!($store), $updates, $copies).await;
        }
    )*};
}

on! {
    moto: true false;
    azurite: true true;
    gcs: true true;
    swift: false true;
}
