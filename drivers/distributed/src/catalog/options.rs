// SPDX-License-Identifier: Apache-2.0
//! A volume's choices, changed after its creation.

use driver_api::{Error, ErrorKind, Result, state::Transaction};

use super::{Catalog, PROVISIONED, TRIES, chosen_key, contended, to_json};
use crate::config::Chosen;

impl Catalog {
    /// Puts `after` in the place of `before`, and counts what is provisioned then, both or neither. `account` gets what
    /// is provisioned and gives what will be.
    pub async fn choose(
        &self,
        name: &str,
        before: &Chosen,
        after: &Chosen,
        account: impl Fn(u64) -> Result<u64>,
    ) -> Result<()> {
        let key = chosen_key(name);
        let _alone = self.accounting.lock().await;
        for _ in 0..TRIES {
            let (now, chosen_at) = self.stored_choices(name).await?;
            if now != *before {
                return Err(Error::new(
                    ErrorKind::IN_USE,
                    "somebody else changed the volume's options meanwhile",
                )
                .with("volume", name)
                .remedy("look at them, then try again"));
            }
            let (provisioned, revision) = self.get_json::<u64>(PROVISIONED).await?;
            let put = Transaction::new()
                .expect(&key, chosen_at)
                .expect(PROVISIONED, revision)
                .put(&key, &to_json(after)?)
                .put(PROVISIONED, &to_json(&account(provisioned)?)?);
            if self.state.commit(put).await?.succeeded {
                return Ok(());
            }
        }
        Err(contended(&key))
    }
}
