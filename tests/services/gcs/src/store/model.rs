// SPDX-License-Identifier: Apache-2.0
//! What is stored: buckets, objects, uploads, and the files that hold bytes.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::keys::hex;

/// A file with an object's bytes, or some of them. It has one owner: an object, or an upload.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) path: PathBuf,
    pub(crate) size: u64,
    /// Removed as soon as nobody reads it any more.
    #[serde(skip)]
    doomed: AtomicBool,
}

impl Piece {
    /// A file that goes with this value, unless somebody [keeps](Self::keep) it.
    pub(crate) fn unowned(path: PathBuf) -> Self {
        Self { path, size: 0, doomed: AtomicBool::new(true) }
    }

    pub(crate) fn with_size(mut self, size: u64) -> Self {
        self.size = size;
        self
    }

    pub(crate) fn keep(&self) {
        self.doomed.store(false, Ordering::Relaxed);
    }

    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if self.doomed.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What clients say of an object, besides its bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) storage_class: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// One generation of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) bucket: String,
    pub(crate) name: String,
    pub(crate) generation: i64,
    pub(crate) metageneration: i64,
    pub(crate) pieces: Vec<Arc<Piece>>,
    pub(crate) crc32c: u32,
    /// None of an object that was made of parts.
    pub(crate) md5: Option<[u8; 16]>,
    /// Microseconds since 1970, as the next two.
    pub(crate) created: i64,
    pub(crate) updated: i64,
    /// When it was replaced or deleted, in a bucket with versions.
    pub(crate) deleted: Option<i64>,
    pub(crate) attributes: Attributes,
}

impl Object {
    pub(crate) fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// With its quotes. The generation names what has no MD5.
    pub(crate) fn etag(&self) -> String {
        match self.md5 {
            Some(md5) => format!("\"{}\"", hex(&md5)),
            None => format!("\"-{}\"", STANDARD.encode(self.generation.to_be_bytes())),
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.deleted.is_none()
    }
}

/// A part of an upload.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) piece: Arc<Piece>,
    pub(crate) crc32c: u32,
    pub(crate) md5: [u8; 16],
    pub(crate) updated: i64,
}

impl Part {
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", hex(&self.md5))
    }
}

/// A multipart upload that is neither complete nor given up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) bucket: String,
    pub(crate) name: String,
    pub(crate) started: i64,
    pub(crate) attributes: Attributes,
    pub(crate) parts: BTreeMap<u32, Part>,
}

/// A bucket, without what is in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) name: String,
    pub(crate) project: String,
    pub(crate) metageneration: i64,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) versioning: bool,
    /// What else the JSON API was told: location, storageClass, lifecycle, labels and so on.
    pub(crate) settings: BTreeMap<String, Value>,
    pub(crate) policy: Value,
}

/// A change, as the journal has it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    Bucket(Bucket),
    BucketGone(String),
    /// A new generation, or one whose description has changed.
    Object(Object),
    ObjectGone {
        bucket: String,
        name: String,
        generation: i64,
    },
    Upload(Upload),
    Part {
        upload: String,
        number: u32,
        part: Part,
    },
    /// An upload's end; an object owns the files of some parts from then on.
    UploadGone {
        id: String,
        taken: Vec<u32>,
    },
}
