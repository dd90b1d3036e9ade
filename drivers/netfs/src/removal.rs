// SPDX-License-Identifier: Apache-2.0
//! Removing volumes.
//!
//! A volume of one file is gone once that is. One of several, layers or extents, is marked in its record first, which nobody attaches from then
//! on; repeating the removal goes on wherever it ended.

use std::time::Instant;

use driver_api::Result;

use crate::{
    companion,
    error::{Fault, not_found},
    holders::Life,
    names::{FileName, layer_infix},
    places::Place,
    store::Store,
    verified,
};

impl Store {
    /// Deletes a volume that nobody holds.
    pub async fn delete(&self, volume: &str, until: Instant) -> Result<()> {
        let _turn = self.turn(volume).await;
        let place = self.found(volume, until).await?;
        let Place { mount, files, file, .. } = &place;
        let mut record = companion::read(mount, files, until).await?.unwrap_or_default();
        let holders = self.holders_of(volume, std::mem::take(&mut record.holders));
        if let Some(holder) = holders.iter().find(|holder| !matches!(holder.life(), Life::Over)) {
            return Err(holder.in_use(volume));
        }
        let told = |fault: Fault| match fault {
            Fault::NotFound => not_found(volume),
            fault => fault.told("the file cannot be removed").with("volume", volume),
        };
        // A name that was to become that of another volume, whose files these are.
        let is_reserved = place.is_reserved(&record);
        let mut layers = if is_reserved { Vec::new() } else { place.layer_files()? };
        let has_extents = record.extent_size > 0 && !is_reserved;
        if (!layers.is_empty() || has_extents) && !record.removing {
            record.removing = true;
            companion::write(mount, files, &record, until).await?;
        }
        // Those that were being made when somebody ended, and extents.
        let has_more = record.tree.last > 0 || !record.copied_from.is_empty() || has_extents;
        if !record.id.is_empty() && has_more && !is_reserved {
            let infix = layer_infix(&record.id);
            let listed = verified::list(mount, until).await.map_err(told)?;
            let ours = listed.iter().filter(|entry| entry.name.contains(&infix));
            layers.extend(ours.filter_map(|entry| FileName::new(&entry.name).ok()));
        }
        for layer in &layers {
            verified::remove_if_there(mount, layer, until).await.map_err(told)?;
        }
        verified::remove(mount, file, until).await.map_err(told)?;
        for name in [&files.companion, &files.fresh_companion] {
            verified::remove_if_there(mount, name, until).await.map_err(told)?;
        }
        Ok(())
    }
}
