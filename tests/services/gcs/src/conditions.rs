// SPDX-License-Identifier: Apache-2.0
//! Preconditions: generations for changes and reads, and those of HTTP for reads.

use axum::http::HeaderMap;

use crate::call::{Call, number};
use crate::clock;
use crate::refusal::Refusal;
use crate::store::Object;

/// What must hold of the object that is there, or that none is (generation 0).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Conditions {
    generation: Option<i64>,
    not_generation: Option<i64>,
    metageneration: Option<i64>,
    not_metageneration: Option<i64>,
}

impl Conditions {
    /// Those of the XML API.
    pub(crate) fn from_headers(call: &Call) -> Result<Self, Refusal> {
        let read = |name: &str| call.header(name).map(|text| number(name, text)).transpose();
        Ok(Self {
            generation: read("x-goog-if-generation-match")?,
            metageneration: read("x-goog-if-metageneration-match")?,
            ..Self::default()
        })
    }

    /// Those of what is copied from, in the XML API.
    pub(crate) fn from_copy_headers(call: &Call) -> Result<Self, Refusal> {
        let read = |name: &str| call.header(name).map(|text| number(name, text)).transpose();
        Ok(Self {
            generation: read("x-goog-copy-source-if-generation-match")?,
            metageneration: read("x-goog-copy-source-if-metageneration-match")?,
            ..Self::default()
        })
    }

    /// Those of the JSON API, whose names are `ifGenerationMatch` and so on, or `ifSourceGenerationMatch` for a source.
    pub(crate) fn from_query(call: &Call, source: &str) -> Result<Self, Refusal> {
        let read = |name: &str| call.number(&format!("if{source}{name}"));
        Ok(Self {
            generation: read("GenerationMatch")?,
            not_generation: read("GenerationNotMatch")?,
            metageneration: read("MetagenerationMatch")?,
            not_metageneration: read("MetagenerationNotMatch")?,
        })
    }

    /// Refuses a change whose conditions do not hold.
    pub(crate) fn check(&self, object: Option<&Object>) -> Result<(), Refusal> {
        let generation = object.map_or(0, |object| object.generation);
        let metageneration = object.map(|object| object.metageneration);
        let holds = self.generation.is_none_or(|wanted| wanted == generation)
            && self.not_generation.is_none_or(|unwanted| unwanted != generation)
            && self.metageneration.is_none_or(|wanted| Some(wanted) == metageneration)
            && self.not_metageneration.is_none_or(|unwanted| Some(unwanted) != metageneration);
        if holds { Ok(()) } else { Err(Refusal::condition()) }
    }

    /// Whether a bucket's metageneration is the wanted one.
    pub(crate) fn check_bucket(&self, metageneration: i64) -> Result<(), Refusal> {
        let holds = self.metageneration.is_none_or(|wanted| wanted == metageneration)
            && self.not_metageneration.is_none_or(|unwanted| unwanted != metageneration);
        if holds { Ok(()) } else { Err(Refusal::condition()) }
    }
}

/// HTTP's own conditions, of a read.
pub(crate) fn check_read(headers: &HeaderMap, object: &Object) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let modified = object.updated / 1_000_000;
    let tag = object.etag();
    if let Some(wanted) = text("if-match") {
        if !names(wanted, &tag) {
            return Err(Refusal::condition());
        }
    } else if let Some(since) = text("if-unmodified-since").and_then(clock::parse_header)
        && modified > since
    {
        return Err(Refusal::condition());
    }
    if let Some(unwanted) = text("if-none-match") {
        if names(unwanted, &tag) {
            return Err(Refusal::not_modified());
        }
    } else if let Some(since) = text("if-modified-since").and_then(clock::parse_header)
        && modified <= since
    {
        return Err(Refusal::not_modified());
    }
    Ok(())
}

fn names(list: &str, tag: &str) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|named| named == "*" || named.trim_matches('"') == tag.trim_matches('"'))
}
