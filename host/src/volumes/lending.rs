// SPDX-License-Identifier: Apache-2.0
//! Which volumes belong to a backend that is built on others: a record under `lent/LENDER/VOLUME` names the borrower.

use std::sync::Arc;

use driver_api::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use super::{
    backends::Boxed,
    service::{Service, Volumes},
};
use crate::plugins::{Holder, Tenure};

/// A volume that a borrower made, as the state keeps it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct LentRecord {
    /// The backend that made it and uses it.
    pub(super) borrower: String,
    /// What a newer version wrote here; kept as it is.
    #[serde(flatten)]
    pub(super) other: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn key(lender: &str, volume: &str) -> String {
    format!("{lender}/{volume}")
}

/// What one borrower made on one backend.
struct Lending {
    service: Arc<Service>,
    lender: String,
    borrower: String,
}

impl Volumes {
    /// Whose the volumes of backend `lender` are, as the backend `borrower` is told.
    pub fn tenure(&self, lender: &str, borrower: &str) -> Arc<dyn Tenure> {
        let (lender, borrower) = (lender.to_owned(), borrower.to_owned());
        Arc::new(Lending { service: self.0.clone(), lender, borrower })
    }

    /// Refuses a volume that a configured backend made for itself; one whose backend is no longer configured is free.
    pub(super) async fn refuse_lent(&self, lender: &str, volume: &str) -> Result<()> {
        let Some(stored) = self.0.lent.get(&key(lender, volume)).await? else { return Ok(()) };
        let borrower = &stored.record.borrower;
        if self.0.backends.status(borrower).is_err() {
            return self.0.lent.remove(&stored).await;
        }
        let why = format!("`{volume}` of backend `{lender}` belongs to backend `{borrower}`");
        Err(Error::new(ErrorKind::IN_USE, why)
            .remedy(format!("manage the volumes of `{borrower}` instead: novastor volume list")))
    }
}

impl Tenure for Lending {
    fn holder(&self, volume: &str) -> Boxed<Result<Holder>> {
        let (service, lender) = (self.service.clone(), self.lender.clone());
        let (borrower, volume) = (self.borrower.clone(), volume.to_owned());
        Box::pin(async move {
            if let Some(stored) = service.lent.get(&key(&lender, &volume)).await? {
                let owner = stored.record.borrower;
                return Ok(match owner == borrower {
                    true => Holder::Borrower,
                    false => Holder::Other(format!("a volume of backend `{owner}`")),
                });
            }
            let records = service.records.list().await?;
            let managed = records.iter().find(|one| one.record.is_called(&lender, &volume));
            Ok(match managed {
                Some(stored) => Holder::Other(format!("volume `{}` of this host", stored.name)),
                None => Holder::Nobody,
            })
        })
    }

    fn claim(&self, volume: &str) -> Boxed<Result<()>> {
        let (service, borrower) = (self.service.clone(), self.borrower.clone());
        let (key, volume) = (key(&self.lender, volume), volume.to_owned());
        Box::pin(async move {
            let record = LentRecord { borrower, other: Default::default() };
            match service.lent.create(&key, record).await? {
                Some(_) => Ok(()),
                None => Err(Error::new(ErrorKind::IN_USE, "somebody else makes it at this moment")
                    .with("volume", volume)),
            }
        })
    }

    fn give_up(&self, volume: &str) -> Boxed<Result<()>> {
        let (service, key) = (self.service.clone(), key(&self.lender, volume));
        Box::pin(async move {
            match service.lent.get(&key).await? {
                Some(stored) => service.lent.remove(&stored).await,
                None => Ok(()),
            }
        })
    }
}
