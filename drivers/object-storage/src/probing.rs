// SPDX-License-Identifier: Apache-2.0
//! Whether a store that speaks S3 heeds conditions. Some take them and ignore them, which would lose data without a word; so
//! before the first conditional mutation of a backend an object of our own is written, and mutated under conditions that do
//! not hold.

use std::time::Instant;

use driver_api::{Error, Result, ext::Conditions};
use http::{Method, StatusCode};
use tokio::sync::OnceCell;

use crate::{
    account::Account,
    call::{Answer, Ask},
    config::Kind,
    error::unsupported,
    info::{quoted, unquoted},
    mark,
    retry::is_error,
    wire::AnswerExt,
};

/// An ETag that no object has.
const NOBODYS: &str = "\"00000000000000000000000000000000\"";

/// Which conditions a store heeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heeded {
    /// Create-only writes.
    pub create: bool,
    /// Writes for a certain ETag.
    pub update: bool,
    /// Create-only copies.
    pub copy: bool,
    /// Deletions for a certain ETag.
    pub delete: bool,
    /// Create-only completions of uploads.
    pub complete_create: bool,
    /// Completions of uploads for a certain ETag.
    pub complete_update: bool,
    /// ETags of conditions have no quotes: radosgw compares them letter by letter.
    pub bare: bool,
}

impl Heeded {
    /// The ETag as this store takes it in a condition of a mutation.
    pub fn written(self, etag: &str) -> String {
        if self.bare { unquoted(etag).to_owned() } else { quoted(etag) }
    }
}

/// What was found out, once in the life of a backend.
pub(crate) type Probed = OnceCell<Heeded>;

/// What a mutation needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// Create-only.
    Create,
    /// For a certain ETag.
    Update,
    /// A copy under a condition on its target.
    Copy,
    /// A deletion under a condition.
    Delete,
    /// A create-only completion of an upload.
    CompleteCreate,
    /// A completion of an upload for a certain ETag.
    CompleteUpdate,
}

impl Need {
    /// What a write under these conditions needs.
    pub fn of(conditions: &Conditions) -> Self {
        if conditions.if_none_match == "*" {
            Self::Create
        } else if conditions.if_match.is_empty() {
            Self::Nothing
        } else {
            Self::Update
        }
    }

    /// What a completion of an upload under these conditions needs.
    pub fn of_completion(conditions: &Conditions) -> Self {
        match Self::of(conditions) {
            Self::Create => Self::CompleteCreate,
            Self::Update => Self::CompleteUpdate,
            need => need,
        }
    }

    /// What it is called where the store ignores its condition.
    fn what(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Create => "create-only writes",
            Self::Update => "writes for a certain ETag",
            Self::Copy => "conditions on a copy's target",
            Self::Delete => "deletions for a certain ETag",
            Self::CompleteCreate => "create-only uploads in parts",
            Self::CompleteUpdate => "uploads in parts for a certain ETag",
        }
    }
}

/// Refuses a mutation whose condition the store would ignore.
pub(crate) async fn check(
    account: &Account,
    bucket: &str,
    need: Need,
    until: Instant,
) -> Result<()> {
    match (account.kind, need) {
        (_, Need::Nothing) => return Ok(()),
        (Kind::S3, _) if !account.conditional() => return Err(switched_off()),
        // Google's completion knows no preconditions: it replaces what is there.
        (Kind::Gcs, Need::CompleteCreate | Need::CompleteUpdate)
        // Swift looks for an object when a manifest is put, but not for which one.
        | (Kind::Swift, Need::Update | Need::CompleteUpdate) => {
            return Err(ignored(account, need));
        }
        (Kind::Azure | Kind::Gcs | Kind::Swift, _) => return Ok(()),
        (Kind::S3, _) => {}
    }
    let heeded = account.probed.get_or_try_init(|| probe(account, bucket, until)).await?;
    let heeds = match need {
        Need::Create => heeded.create,
        Need::Update => heeded.update,
        Need::Copy => heeded.copy,
        Need::Delete => heeded.delete,
        Need::CompleteCreate => heeded.complete_create,
        Need::CompleteUpdate => heeded.complete_update,
        Need::Nothing => true,
    };
    if heeds { Ok(()) } else { Err(ignored(account, need)) }
}

/// The refusal of a condition by a backend that is to have none.
pub(crate) fn switched_off() -> Error {
    unsupported("conditional writes are switched off for this backend: conditional_put = \"off\"")
}

fn ignored(account: &Account, need: Need) -> Error {
    unsupported(format!(
        "the store ignores the condition of {}, which would lose data without a word",
        need.what()
    ))
    .with("endpoint", account.shown_endpoint())
    .remedy("do without the condition, or use a store that heeds it")
}

/// Tries conditions that do not hold on an object of our own.
async fn probe(account: &Account, bucket: &str, until: Instant) -> Result<Heeded> {
    let key = format!(".novastor-probe-{}", mark::of("")?);
    let put = || {
        Ask::new("probe conditions", Method::PUT, bucket, &key)
            .headers(&account.encrypt)
            .headers(&account.customer)
            .body("probe")
    };
    let first = account.ask_ok(&put(), until).await?;
    let create = account.ask(&put().header("if-none-match", "*")?, until).await?;
    let mut update = account.ask(&put().header("if-match", NOBODYS)?, until).await?;
    let etag = first.header("etag");
    let right = account.ask(&put().header("if-match", &quoted(etag))?, until).await?;
    let mut versions = vec![version_of(&first), version_of(&create), version_of(&right)];
    let bare = !right.status.is_success();
    if bare {
        let unquoted = unquoted(etag).to_owned();
        update = account.ask(&put().header("if-match", &NOBODYS.replace('"', ""))?, until).await?;
        let right = account.ask(&put().header("if-match", &unquoted)?, until).await?;
        versions.push(version_of(&right));
        // What holds is refused as well: that is no condition that could be used.
        if !right.status.is_success() {
            update.status = StatusCode::NOT_IMPLEMENTED;
        }
    }
    versions.push(version_of(&update));
    let mut copy = put().body("").header("x-amz-copy-source", &format!("/{bucket}/{key}"))?;
    copy = copy.header("x-amz-metadata-directive", "REPLACE")?.header("if-none-match", "*")?;
    for (name, value) in &account.customer {
        let name = name.as_str().replacen("x-amz-", "x-amz-copy-source-", 1);
        copy = copy.header(&name, value.to_str().unwrap_or_default())?;
    }
    let copied = account.ask(&copy, until).await?;
    let complete_create = completes(account, (bucket, &key), false, bare, &mut versions, until);
    let complete_create = complete_create.await?;
    let complete_update = completes(account, (bucket, &key), true, bare, &mut versions, until);
    let complete_update = complete_update.await?;
    let delete = Ask::new("probe conditions", Method::DELETE, bucket, &key);
    let deleted = account.ask(&delete.clone().header("if-match", NOBODYS)?, until).await?;
    let heeded = Heeded {
        create: refused(&create),
        update: refused(&update),
        copy: refused(&copied),
        delete: refused(&deleted),
        complete_create,
        complete_update,
        bare,
    };
    tracing::info!(?heeded, endpoint = account.shown_endpoint(), "conditions that the store heeds");
    // Where versions are kept, all of the probe's are taken away; a rest does no harm.
    let _ = account.ask(&delete, until).await;
    versions.push(version_of(&copied));
    for version in versions.into_iter().filter(|version| !version.is_empty() && version != "null") {
        let _ = account.ask(&delete.clone().query("versionId", version), until).await;
    }
    Ok(heeded)
}

/// Whether an upload's completion heeds a condition: one that does not hold is refused, and (for a certain ETag) one that
/// holds is not. The versions that it makes are added to `versions`.
async fn completes(
    account: &Account,
    (bucket, key): (&str, &str),
    update: bool,
    bare: bool,
    versions: &mut Vec<String>,
    until: Instant,
) -> Result<bool> {
    let ask = |method, query: &[(&str, &str)]| {
        let ask = Ask::new("probe conditions", method, bucket, key).headers(&account.customer);
        query.iter().fold(ask, |ask, (name, value)| ask.query(name, *value))
    };
    let begin = ask(Method::POST, &[("uploads", "")]).headers(&account.encrypt);
    let begun = account.ask_ok(&begin, until).await?;
    let id = begun.document("InitiateMultipartUploadResult", &begin)?.need("UploadId")?.to_owned();
    let part = ask(Method::PUT, &[("partNumber", "1"), ("uploadId", &id)]).body("probe");
    let etag = quoted(account.ask_ok(&part, until).await?.header("etag"));
    let parts = format!(
        "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>{etag}</ETag></Part></CompleteMultipartUpload>"
    );
    let completion = ask(Method::POST, &[("uploadId", &id)])
        .header("content-type", "application/xml")?
        .body(parts);
    let written = |etag: &str| if bare { unquoted(etag).to_owned() } else { quoted(etag) };
    let wrong = match update {
        true => completion.clone().header("if-match", &written(NOBODYS))?,
        false => completion.clone().header("if-none-match", "*")?,
    };
    let answer = account.ask(&wrong, until).await?;
    versions.push(version_of(&answer));
    if !refused(&answer) {
        if !answer.status.is_success() {
            abandon(account, &ask(Method::DELETE, &[("uploadId", &id)]), until).await;
        }
        return Ok(false);
    }
    let mut heeds = true;
    if update {
        let now = account.ask_ok(&ask(Method::HEAD, &[]), until).await?;
        let right = completion.header("if-match", &written(now.header("etag")))?;
        let answer = account.ask(&right, until).await?;
        versions.push(version_of(&answer));
        // What holds is refused as well: that is no condition that could be used.
        heeds = answer.status.is_success() && !is_error(&answer.body);
    }
    if !update || !heeds {
        abandon(account, &ask(Method::DELETE, &[("uploadId", &id)]), until).await;
    }
    Ok(heeds)
}

/// Gives the probe's upload up; what is left goes with the bucket's rules if this is not answered.
async fn abandon(account: &Account, ask: &Ask, until: Instant) {
    let _ = account.ask(ask, until).await;
}

fn version_of(answer: &Answer) -> String {
    answer.header("x-amz-version-id").to_owned()
}

fn refused(answer: &Answer) -> bool {
    answer.status == StatusCode::PRECONDITION_FAILED
}
