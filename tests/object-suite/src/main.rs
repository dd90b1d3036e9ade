// SPDX-License-Identifier: Apache-2.0
//! Plays the test suite of the crate `object_store` on one bucket, as the object-storage driver configures it: a line a function
//! on standard output, with `passed`, or `failed` and the reason, between tabs.
//!
//! `object-suite FILE`, where FILE has `{"bucket": NAME, "options": {...}}` with the options of a backend, secrets included. The
//! bucket is there, and emptied by this.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::TryStreamExt;
use object_storage::{BucketStore, Config, ObjectBackend};
use object_store::{ObjectStoreExt, integration};
use serde_json::Value;
use tokio::runtime::Runtime;

/// How long a function may take.
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match play() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn play() -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::args().nth(1).ok_or("which file?")?;
    let ask: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let name = ask["bucket"].as_str().ok_or("which bucket?")?;
    let config: Config = serde_json::from_value(ask["options"].clone())?;
    let kind = ask["options"]["kind"].as_str().unwrap_or_default().to_owned();
    let backend = ObjectBackend::open("suite", config).map_err(|error| error.to_string())?;
    let bucket = backend.bucket_store(name).map_err(|error| error.to_string())?;
    let suite = Suite { bucket, runtime: Runtime::new()?, said: hear() };
    suite.all(&kind);
    Ok(())
}

/// Where the last panic said what was wrong: the place is worth more than the words.
type Heard = Arc<Mutex<String>>;

fn hear() -> Heard {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    std::panic::set_hook(Box::new(move |info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let text = format!("{place}: {}", words(info.payload()));
        *told.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
    heard
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

struct Suite {
    bucket: BucketStore,
    runtime: Runtime,
    said: Heard,
}

impl Suite {
    fn one(&self, name: &str, test: impl Future<Output = ()>) {
        let emptied = self.runtime.block_on(self.empty());
        if let Err(error) = emptied {
            println!("{name}\tfailed\tthe bucket cannot be emptied: {error}");
            return;
        }
        let timed = async { tokio::time::timeout(LIMIT, test).await };
        let ended = catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(timed)));
        let why = match ended {
            Ok(Ok(())) => {
                println!("{name}\tpassed");
                return;
            }
            Ok(Err(_)) => format!("not within {} s", LIMIT.as_secs()),
            Err(_) => self.said.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        let line: String = why.split_whitespace().collect::<Vec<_>>().join(" ");
        println!("{name}\tfailed\t{}", line.chars().take(600).collect::<String>());
    }

    /// A function that fails leaves something behind, which the next one would stumble over.
    async fn empty(&self) -> object_store::Result<()> {
        let store = &self.bucket.objects;
        let listed: Vec<_> = store.list(None).try_collect().await?;
        for object in listed {
            store.delete(&object.location).await?;
        }
        Ok(())
    }

    /// Every function that the suite has for users of the traits.
    fn all(&self, kind: &str) {
        let BucketStore { objects, uploads, pages } = &self.bucket;
        let store = objects.as_ref();
        self.one("put_get_delete_list", integration::put_get_delete_list(objects));
        self.one(
            "list_with_offset_exclusivity",
            integration::list_with_offset_exclusivity(objects),
        );
        self.one("get_opts", integration::get_opts(store));
        let directories = integration::list_uses_directories_correctly(objects);
        self.one("list_uses_directories_correctly", directories);
        self.one("list_with_delimiter", integration::list_with_delimiter(objects));
        self.one("rename_and_copy", integration::rename_and_copy(objects));
        self.one("copy_if_not_exists", integration::copy_if_not_exists(objects));
        let missing = integration::copy_rename_nonexistent_object(objects);
        self.one("copy_rename_nonexistent_object", missing);
        // What has no updates says so, which is tested, too.
        self.one("put_opts", integration::put_opts(store, kind != "swift"));
        if kind == "swift" {
            self.one("put_opts, update", integration::put_opts(store, true));
        }
        self.one("put_get_attributes", integration::put_get_attributes(store));
        self.one("stream_get", integration::stream_get(objects));
        self.one("multipart", integration::multipart(store, uploads.as_ref()));
        self.one("multipart_with_opts", integration::multipart_with_opts(store, uploads.as_ref()));
        let order = integration::multipart_put_part_out_of_order(store, uploads.as_ref());
        self.one("multipart_put_part_out_of_order", order);
        // Blocks of Azure belong to the object, not to an upload: the second completion finds the first one's gone.
        let race = integration::multipart_race_condition(store, kind != "azure");
        self.one("multipart_race_condition", race);
        self.one("multipart_out_of_order", integration::multipart_out_of_order(store));
        self.one("list_paginated", integration::list_paginated(store, pages.as_ref()));
        self.one("get_nonexistent_object", async {
            let error = integration::get_nonexistent_object(objects, None).await.err();
            let is_right = matches!(error, Some(object_store::Error::NotFound { .. }));
            assert!(is_right, "{error:?}");
        });
    }
}
