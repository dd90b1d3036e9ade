// SPDX-License-Identifier: Apache-2.0
//! The option that says how hard a volume heals while clients use it.

use distributed_core::HealingPace;
use driver_api::{OptionSpec, OptionType};
use serde::{Deserialize, Serialize};

/// See [`HealingPace`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pace {
    /// See [`HealingPace::Gentle`].
    Gentle,
    /// See [`HealingPace::Balanced`].
    Balanced,
    /// See [`HealingPace::Urgent`].
    Urgent,
}

const PACES: &[&str] = &["gentle", "balanced", "urgent"];

impl From<Pace> for HealingPace {
    fn from(pace: Pace) -> Self {
        match pace {
            Pace::Gentle => Self::Gentle,
            Pace::Balanced => Self::Balanced,
            Pace::Urgent => Self::Urgent,
        }
    }
}

/// The option of the backend.
pub(super) fn option() -> OptionSpec {
    OptionSpec::new(
        "healing_pace",
        OptionType::CHOICE,
        "Whom healing and rebalancing favour: clients (gentle), both, or themselves (urgent).",
    )
    .choices(PACES)
    .default_json("\"gentle\"")
}

/// The option of a volume.
pub(super) fn volume_option() -> OptionSpec {
    OptionSpec::new(
        "healing_pace",
        OptionType::CHOICE,
        "Whom its healing and rebalancing favour; default: the backend's.",
    )
    .choices(PACES)
}
