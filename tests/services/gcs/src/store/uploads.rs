// SPDX-License-Identifier: Apache-2.0
//! Multipart uploads.

use std::sync::Arc;

use axum::http::StatusCode;

use super::model::{Attributes, Event, Object, Part, Upload};
use super::{NewObject, Store, check_name};
use crate::body::Received;
use crate::clock;
use crate::conditions::Conditions;
use crate::keys::hex;
use crate::refusal::Refusal;

/// What every part but the last has at least, bytes.
const SMALLEST: u64 = 5 << 20;
const PARTS: u32 = 10_000;

impl Store {
    pub(crate) fn begin_upload(
        &self,
        bucket: &str,
        name: &str,
        attributes: Attributes,
    ) -> Result<Upload, Refusal> {
        check_name(name)?;
        let mut id = [0; 24];
        getrandom::fill(&mut id).map_err(|error| Refusal::internal("random numbers", error))?;
        let (bucket, name) = (bucket.to_owned(), name.to_owned());
        let upload = Upload {
            id: hex(&id),
            bucket,
            name,
            started: clock::now(),
            attributes,
            parts: Default::default(),
        };
        let mut state = self.lock();
        state.held(&upload.bucket)?;
        state.commit(vec![Event::Upload(upload.clone())])?;
        Ok(upload)
    }

    pub(crate) fn put_part(
        &self,
        (bucket, name): (&str, &str),
        id: &str,
        number: u32,
        received: Received,
    ) -> Result<Part, Refusal> {
        if !(1..=PARTS).contains(&number) {
            return Err(Refusal::invalid(
                "Part number must be an integer between 1 and 10000, inclusive.",
            ));
        }
        let Received { piece, crc32c, md5 } = received;
        let part = Part { piece, crc32c, md5, updated: clock::now() };
        let mut state = self.lock();
        state.upload(bucket, name, id)?;
        state.commit(vec![Event::Part { upload: id.to_owned(), number, part: part.clone() }])?;
        Ok(part)
    }

    pub(crate) fn upload(&self, bucket: &str, name: &str, id: &str) -> Result<Upload, Refusal> {
        self.lock().upload(bucket, name, id).cloned()
    }

    /// A bucket's uploads whose objects' names begin so, by name and age.
    pub(crate) fn uploads(&self, bucket: &str, prefix: &str) -> Result<Vec<Upload>, Refusal> {
        let state = self.lock();
        state.held(bucket)?;
        let mut uploads: Vec<_> = state
            .uploads
            .values()
            .filter(|upload| upload.bucket == bucket && upload.name.starts_with(prefix))
            .cloned()
            .collect();
        uploads.sort_by(|a, b| (&a.name, a.started).cmp(&(&b.name, b.started)));
        Ok(uploads)
    }

    pub(crate) fn abort_upload(&self, bucket: &str, name: &str, id: &str) -> Result<(), Refusal> {
        let mut state = self.lock();
        state.upload(bucket, name, id)?;
        state.commit(vec![Event::UploadGone { id: id.to_owned(), taken: Vec::new() }])
    }

    /// Makes an object of parts: their numbers and ETags, in order. Google heeds no precondition here.
    pub(crate) fn complete_upload(
        &self,
        (bucket, name): (&str, &str),
        id: &str,
        wanted: &[(u32, String)],
    ) -> Result<Arc<Object>, Refusal> {
        let mut state = self.lock();
        if !wanted.is_sorted_by(|(one, _), (next, _)| one < next) {
            let message = "The list of parts was not in ascending order. Parts list must specified in order by part number.";
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "InvalidPartOrder",
                "invalid",
                message,
            ));
        }
        let upload = state.upload(bucket, name, id)?;
        let (mut pieces, mut crc) = (Vec::new(), 0);
        for (index, (number, tag)) in wanted.iter().enumerate() {
            let part = upload
                .parts
                .get(number)
                .filter(|part| part.etag().trim_matches('"') == tag.trim_matches('"'));
            let part = part.ok_or_else(|| {
                let message = "One or more of the specified parts could not be found. The part might not have been uploaded, \
                               or the specified entity tag might not have matched the part's entity tag.";
                Refusal::new(StatusCode::BAD_REQUEST, "InvalidPart", "invalid", message)
            })?;
            if part.piece.size < SMALLEST && index + 1 < wanted.len() {
                let message =
                    "Your proposed upload is smaller than the minimum allowed object size.";
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "EntityTooSmall",
                    "invalid",
                    message,
                ));
            }
            let length = usize::try_from(part.piece.size).unwrap_or(usize::MAX);
            crc = crc32c::crc32c_combine(crc, part.crc32c, length);
            pieces.push(part.piece.clone());
        }
        if pieces.is_empty() {
            let message = "You must specify at least one part.";
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "MalformedCompleteMultipartUploadRequest",
                "invalid",
                message,
            ));
        }
        let new = NewObject {
            bucket: bucket.to_owned(),
            name: name.to_owned(),
            pieces,
            crc32c: crc,
            md5: None,
            attributes: upload.attributes.clone(),
        };
        let taken = wanted.iter().map(|(number, _)| *number).collect();
        let gone = Event::UploadGone { id: id.to_owned(), taken };
        self.put_locked(&mut state, new, &Conditions::default(), vec![gone])
    }
}
