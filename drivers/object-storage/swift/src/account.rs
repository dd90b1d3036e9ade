// SPDX-License-Identifier: Apache-2.0

//! The account: its sums, its TempURL keys, what the server can do.

use std::sync::Arc;

use http::{HeaderMap, Method};
use object_store::Result;

use crate::client::{Call, Target};
use crate::config::Secret;
use crate::error::{Failure, FailureKind};
use crate::info::Capabilities;
use crate::store::Swift;

/// Where a TempURL key is kept, and so for which objects it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TempUrlScope {
    /// All containers of the account.
    Account,
    /// This container.
    Container,
}

/// The sums of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// Containers.
    pub containers: u64,
    /// Objects in all of them.
    pub objects: u64,
    /// Their bytes. Servers count with some delay.
    pub bytes: u64,
    /// The most bytes it may have, if limited.
    pub quota_bytes: Option<u64>,
}

pub(crate) fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

impl Swift {
    /// What the server can do.
    ///
    /// # Errors
    /// No answer of the server.
    pub async fn capabilities(&self) -> Result<Arc<Capabilities>> {
        Ok(self.client().capabilities().await?)
    }

    /// The sums of the account.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn account(&self) -> Result<Account> {
        let head = self.client().send(&Call::new(Method::HEAD, Target::Account)).await?.headers;
        let sum = |name| number(&head, name).unwrap_or_default();
        Ok(Account {
            containers: sum("x-account-container-count"),
            objects: sum("x-account-object-count"),
            bytes: sum("x-account-bytes-used"),
            quota_bytes: number(&head, "x-account-meta-quota-bytes"),
        })
    }

    pub(crate) fn keeper(&self, method: Method, scope: TempUrlScope) -> (Call, &'static str) {
        match scope {
            TempUrlScope::Account => {
                (Call::new(method, Target::Account), "x-account-meta-temp-url-key")
            }
            TempUrlScope::Container => {
                (Call::container(method, self.container_name()), "x-container-meta-temp-url-key")
            }
        }
    }

    /// Takes the TempURL key of account or container for signing.
    ///
    /// # Errors
    /// There is none, or the user may not see it.
    pub async fn load_tempurl_key(&self, scope: TempUrlScope) -> Result<()> {
        let (call, name) = self.keeper(Method::HEAD, scope);
        let head = self.client().send(&call).await?;
        let key =
            head.header(name).filter(|key| !key.is_empty()).map(Secret::new).ok_or_else(|| {
                let cause = "there is no TempURL key, or this user may not see it";
                Failure::new(FailureKind::NotFound, call.label(), cause).remedy("set one")
            })?;
        self.use_tempurl_key(key);
        Ok(())
    }

    /// Sets the TempURL key of account or container, and signs with it. URLs signed with the former key end.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn set_tempurl_key(&self, scope: TempUrlScope, key: Secret) -> Result<()> {
        let (call, name) = self.keeper(Method::POST, scope);
        self.client().send(&call.header(name, key.reveal())).await?;
        self.use_tempurl_key(key);
        Ok(())
    }
}
