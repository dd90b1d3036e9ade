// SPDX-License-Identifier: Apache-2.0
//! How well the store is: asked by one cheap request with a short deadline.

use std::time::{Duration, Instant};

use driver_api::{Error, ErrorKind, Health, Result};
use http::Method;

use crate::{
    account::{Account, Credential},
    call::Ask,
    config::Kind,
};

/// How long the probe waits at most.
const PROBE: Duration = Duration::from_secs(5);

/// Asks the store how it is.
pub(crate) async fn health(account: &Account, until: Instant) -> Health {
    let until = until.min(Instant::now() + PROBE);
    // A storm is known without asking; asking would make it longer.
    if let Some((gap, answers)) = account.pace.storm(Instant::now()) {
        return Health::degraded(&format!(
            "the store asked for patience {answers} times lately; requests leave {:.2} s apart",
            gap.as_secs_f64()
        ));
    }
    match probe(account, until).await {
        Ok(()) => Health::healthy(),
        Err(error) => {
            let mut reason = error.to_string();
            if !error.remedy_text().is_empty() {
                reason = format!("{reason}; {}", error.remedy_text());
            }
            // The store answers and works; only this question is not allowed, or it is busy.
            if busy(account, &error) { Health::degraded(&reason) } else { Health::failed(&reason) }
        }
    }
}

fn busy(account: &Account, error: &Error) -> bool {
    error.kind() == ErrorKind::UNAVAILABLE && account.pace.storm(Instant::now()).is_some()
}

async fn probe(account: &Account, until: Instant) -> Result<()> {
    let operation = "probe health";
    if account.kind == Kind::Swift {
        return crate::swift::probe(account, until).await;
    }
    let ask = match (&account.config.probe_bucket, account.kind) {
        (Some(bucket), Kind::Gcs | Kind::S3) => Ask::new(operation, Method::GET, bucket, "")
            .query("list-type", "2")
            .query("max-keys", "1"),
        (Some(bucket), _) => {
            Ask::new(operation, Method::GET, bucket, "").query("restype", "container")
        }
        (None, Kind::Azure) => {
            Ask::new(operation, Method::GET, "", "").query("comp", "list").query("maxresults", "1")
        }
        (None, Kind::Gcs) => match &account.config.project {
            Some(project) => Ask::new(operation, Method::GET, "storage", "v1/b")
                .query("project", project.as_str())
                .query("maxResults", "1"),
            None => Ask::new(operation, Method::GET, "", ""),
        },
        (None, _) => Ask::new(operation, Method::GET, "", ""),
    };
    let answer = account.ask(&ask, until).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let error = answer.error(account, &ask);
    let asked_for_nothing = account.config.probe_bucket.is_none();
    let anonymous = matches!(account.credential, Credential::Aws(None));
    match error.kind() {
        // It knows who asks, and does not let them list buckets: that is no illness.
        ErrorKind::PERMISSION_DENIED if asked_for_nothing => Ok(()),
        _ if asked_for_nothing && anonymous && answer.status.is_client_error() => Ok(()),
        // Without a project there is nothing that GCS could be asked for.
        ErrorKind::INVALID_ARGUMENT | ErrorKind::NOT_FOUND
            if asked_for_nothing
                && account.kind == Kind::Gcs
                && account.config.project.is_none() =>
        {
            Ok(())
        }
        _ => Err(error),
    }
}
