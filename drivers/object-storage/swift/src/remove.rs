// SPDX-License-Identifier: Apache-2.0

//! Deletion: many objects by one request, large ones with their segments.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt};
use http::Method;
use object_store::Result;
use object_store::path::Path;

use crate::attributes;
use crate::client::{Call, Target};
use crate::encode;
use crate::error::{Failure, FailureKind};
use crate::listing::{PAGE, Span};
use crate::manifest::Report;
use crate::store::Swift;

/// Names in one bulk request.
const BULK: usize = 1000;
/// Fewer names than this are deleted one by one.
const FEW: usize = 4;
/// Heads and single deletions under way at once.
const AT_ONCE: usize = 16;
/// What each name adds to a bulk request's deadline.
const EACH: Duration = Duration::from_millis(50);

/// What an object is before it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Nature {
    Plain,
    /// A static large object.
    Large,
    Missing,
}

impl Swift {
    /// Deletes what `locations` yields, in order; an error of the stream is passed on in its place.
    pub(crate) fn remove_all(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let swift = self.clone();
        let batches = locations.chunks(BULK).map(move |batch| {
            let swift = swift.clone();
            async move { stream::iter(swift.remove_batch(batch).await) }
        });
        batches.buffered(2).flatten().boxed()
    }

    async fn remove_batch(&self, batch: Vec<Result<Path>>) -> Vec<Result<Path>> {
        let keys: Vec<String> =
            batch.iter().flatten().map(|path| path.as_ref().to_owned()).collect();
        let mut outcomes = self.remove_objects(&keys).await.into_iter();
        let each = |path: Path| match outcomes.next() {
            Some(Err(failure)) => Err(failure.into()),
            _ => Ok(path),
        };
        batch
            .into_iter()
            .map({
                let mut each = each;
                move |path| path.and_then(&mut each)
            })
            .collect()
    }

    /// Deletes objects of this container with their segments; one outcome for each key.
    pub(crate) async fn remove_objects(
        &self,
        keys: &[String],
    ) -> Vec<std::result::Result<(), Failure>> {
        let natures = match self.natures(keys).await {
            Ok(natures) => natures,
            Err(failure) => return keys.iter().map(|_| Err(failure.clone())).collect(),
        };
        let of = |wanted: Nature| -> Vec<String> {
            let mut seen = HashSet::new();
            let chosen = keys
                .iter()
                .zip(&natures)
                .filter(|(key, nature)| **nature == wanted && seen.insert(*key));
            chosen.map(|(key, _)| key.clone()).collect()
        };
        let (plain, large) = (of(Nature::Plain), of(Nature::Large));
        let removed = self.remove_names(self.container_name(), &plain).await;
        let mut failures: HashMap<String, Failure> = plain
            .into_iter()
            .zip(removed)
            .filter_map(|(key, outcome)| Some((key, outcome.err()?)))
            .collect();
        if !large.is_empty() {
            // Where old versions stay, so do their segments.
            let whole = self.keeps_versions(self.container_name()).await.map(|keeps| !keeps);
            for key in large {
                let outcome = match &whole {
                    Ok(true) => self.remove_large(self.container_name(), &key, None).await,
                    Ok(false) => self.remove_one(self.container_name(), &key).await,
                    Err(failure) => Err(failure.clone()),
                };
                if let Err(failure) = outcome {
                    failures.insert(key, failure);
                }
            }
        }
        let missing = |key: &String| {
            let cause = "there is no such object";
            Failure::new(
                FailureKind::NotFound,
                format!("DELETE of {}/{key}", self.container_name()),
                cause,
            )
            .path(key)
        };
        keys.iter()
            .zip(natures)
            .map(|(key, nature)| match (nature, failures.get(key)) {
                (Nature::Missing, _) => Err(missing(key)),
                (_, Some(failure)) => Err(failure.clone()),
                (_, None) => Ok(()),
            })
            .collect()
    }

    /// What each of `keys` is. A listing tells it for many at once, where the server marks large objects in it.
    async fn natures(&self, keys: &[String]) -> std::result::Result<Vec<Nature>, Failure> {
        let mut known: HashMap<String, Nature> = HashMap::new();
        if keys.len() > FEW && self.client().capabilities().await?.listing_marks_large {
            known = self.listed_natures(keys).await?;
        }
        let asked = keys.iter().cloned().map(|key| {
            let listed = known.get(&key).copied();
            async move {
                if let Some(nature) = listed {
                    return Ok(nature);
                }
                let call = Call::object(Method::HEAD, self.container_name(), &key)
                    .header("X-Newest", "true");
                match self.client().send(&call).await {
                    Ok(answer) if attributes::is_large(&answer.headers) => Ok(Nature::Large),
                    Ok(_) => Ok(Nature::Plain),
                    Err(failure) if failure.kind() == FailureKind::NotFound => Ok(Nature::Missing),
                    Err(failure) => Err(failure),
                }
            }
        });
        let natures: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        natures.into_iter().collect()
    }

    /// What two pages of a listing tell about `keys`: they are neighbours when a whole prefix is deleted.
    async fn listed_natures(
        &self,
        keys: &[String],
    ) -> std::result::Result<HashMap<String, Nature>, Failure> {
        let wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
        let (Some(first), Some(last)) = (wanted.iter().min(), wanted.iter().max()) else {
            return Ok(HashMap::new());
        };
        let common = first.bytes().zip(last.bytes()).take_while(|(a, b)| a == b).count();
        let common = (0..=common).rev().find(|at| first.is_char_boundary(*at)).unwrap_or(0);
        let mut span = Span { prefix: first[..common].to_owned(), ..Span::default() };
        // A listing begins behind its marker, which is right before the first name.
        span.end_marker = format!("{last}\u{1}");
        let mut known = HashMap::new();
        for _ in 0..2 {
            let (entries, _) = self.page(self.container_name(), &span, PAGE).await?;
            let Some(end) = entries.last() else { break };
            span.marker = end.name.clone();
            let full = entries.len() >= PAGE;
            for entry in entries.into_iter().filter(|entry| wanted.contains(entry.name.as_str())) {
                let nature = if entry.slo_etag.is_some() { Nature::Large } else { Nature::Plain };
                known.insert(entry.name, nature);
            }
            if !full {
                break;
            }
        }
        Ok(known)
    }

    /// Deletes objects that are not large; one outcome for each name. What is not there is deleted.
    pub(crate) async fn remove_names(
        &self,
        container: &str,
        names: &[String],
    ) -> Vec<std::result::Result<(), Failure>> {
        let bulk = match self.client().capabilities().await {
            Ok(info) => info.bulk_delete.map(|most| most.clamp(1, BULK)),
            Err(failure) => return names.iter().map(|_| Err(failure.clone())).collect(),
        };
        let mut outcomes = Vec::with_capacity(names.len());
        if let Some(most) = bulk.filter(|_| names.len() >= FEW) {
            for chunk in names.chunks(most) {
                match self.bulk(container, chunk).await {
                    Ok(Some(chunk)) => outcomes.extend(chunk),
                    Ok(None) => break,
                    Err(failure) => outcomes.extend(chunk.iter().map(|_| Err(failure.clone()))),
                }
            }
        }
        let singles = names[outcomes.len()..].iter().cloned().map(|name| async move {
            match self.remove_one(container, &name).await {
                Err(failure) if failure.kind() == FailureKind::NotFound => Ok(()),
                outcome => outcome,
            }
        });
        let singles: Vec<_> = stream::iter(singles).buffered(AT_ONCE).collect().await;
        outcomes.extend(singles);
        outcomes
    }

    /// One bulk request; nothing if the server does not have it.
    async fn bulk(
        &self,
        container: &str,
        names: &[String],
    ) -> std::result::Result<Option<Vec<std::result::Result<(), Failure>>>, Failure> {
        let line = |name: &String| format!("/{}/{}\n", encode::name(container), encode::key(name));
        let lines: String = names.iter().map(line).collect();
        let call = Call::new(Method::POST, Target::Account)
            .query("bulk-delete", "")
            .header("Content-Type", "text/plain")
            .payload(lines)
            .allowance(EACH * names.len() as u32);
        let answer = match self.client().send(&call).await {
            Ok(answer) => answer,
            Err(failure) if matches!(failure.status(), Some(400 | 404 | 405 | 501)) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        let Some(report) = Report::parse(&answer.bytes().await?) else { return Ok(None) };
        let failed = |cause: String| {
            let label = format!("bulk DELETE of {} names of {container}", names.len());
            Failure::new(FailureKind::Server, label, cause)
                .unknown(true)
                .remedy("repeat it: deleting twice does no harm")
        };
        let wrong: HashMap<String, &str> = report
            .errors
            .iter()
            .map(|(name, error)| {
                let name =
                    percent_encoding::percent_decode_str(name).decode_utf8_lossy().into_owned();
                (name.trim_start_matches('/').to_owned(), error.as_str())
            })
            .collect();
        let counted = report
            .deleted
            .unwrap_or(0)
            .saturating_add(report.not_found)
            .saturating_add(report.errors.len());
        if counted != names.len() {
            let cause = format!(
                "the server tells of {counted} of {} names: {}",
                names.len(),
                report.cause()
            );
            return Err(failed(cause));
        }
        if wrong.is_empty() && report.code() >= 400 {
            return Err(failed(report.cause()));
        }
        let outcome = |name: &String| match wrong.get(&format!("{container}/{name}")) {
            Some(error) => Err(refused(container, name, error)),
            None => Ok(()),
        };
        let outcomes: Vec<_> = names.iter().map(outcome).collect();
        if outcomes.iter().filter(|outcome| outcome.is_err()).count() < wrong.len() {
            return Err(failed(format!(
                "the server tells of other names than it was asked for: {}",
                report.cause()
            )));
        }
        Ok(Some(outcomes))
    }

    /// Deletes one object, or the manifest of a large one.
    pub(crate) async fn remove_one(
        &self,
        container: &str,
        name: &str,
    ) -> std::result::Result<(), Failure> {
        match self.client().send(&Call::object(Method::DELETE, container, name)).await {
            Ok(_) => Ok(()),
            // An attempt whose answer was lost has deleted it.
            Err(failure)
                if failure.kind() == FailureKind::NotFound && failure.outcome_unknown() =>
            {
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// Deletes a static large object with all its segments: those first, so that a failure leaves it to be deleted again.
    pub(crate) async fn remove_large(
        &self,
        container: &str,
        key: &str,
        version: Option<&str>,
    ) -> std::result::Result<(), Failure> {
        let mut call =
            Call::object(Method::DELETE, container, key).query("multipart-manifest", "delete");
        if let Some(version) = version {
            call = call.query("version-id", version);
        }
        let body = self.client().send(&call.clone().allowance(EACH * 1000)).await?.bytes().await?;
        let failed = |cause: String| {
            let remedy = "delete it again: its manifest stays until all its segments are gone";
            call.failure(FailureKind::Server, cause).unknown(true).remedy(remedy)
        };
        if body.is_empty() {
            return Ok(());
        }
        match Report::parse(&body) {
            // It was replaced by a plain object since it was looked at.
            Some(report)
                if report.errors.iter().any(|(_, error)| error == "Not an SLO manifest") =>
            {
                self.remove_one(container, key).await
            }
            Some(report) if report.code() == 200 && report.errors.is_empty() => Ok(()),
            // An attempt before, or somebody else, has deleted it.
            Some(report) if report.code() == 404 && report.errors.is_empty() => {
                Err(call.failure(FailureKind::NotFound, report.cause()))
            }
            Some(report) => Err(failed(report.cause())),
            None => Err(failed("the server's answer is no report".to_owned())),
        }
    }
}

fn refused(container: &str, name: &str, error: &str) -> Failure {
    let code =
        error.split(' ').next().and_then(|code| http::StatusCode::from_bytes(code.as_bytes()).ok());
    let (kind, remedy) = code.map_or((FailureKind::Server, ""), crate::error::classify);
    Failure::new(kind, format!("DELETE of {container}/{name}"), error).path(name).remedy(remedy)
}
