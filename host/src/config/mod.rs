// SPDX-License-Identifier: Apache-2.0
//! The host's configuration.
//!
//! ```text
//! built-in defaults < host.toml < conf.d/*.toml by name < NOVASTOR__SECTION__KEY < --set section.key=value
//! ```
//!
//! What is later in this row wins, key by key. The keys are data ([`describe_keys`]); their checks, defaults and help
//! come from there, and the options of a backend from what its driver declares ([`check_options`]). Whatever is refused
//! is refused with its place (file and line, variable or flag), its key, the reason and what to write instead. Values
//! of secrets appear in no message and no debug output.

mod keys;
mod layers;
mod load;
mod names;
mod nbd;
mod options;
mod origin;
mod secrets;
mod settings;
mod sizes;
mod value;

pub use keys::{KeyHelp, describe_keys};
pub use layers::{DEFAULT_FILE, Sources, Variables};
pub use load::Loaded;
pub use names::validate_name;
pub use options::{check_options, without_secrets};
pub use origin::Origin;
pub use secrets::{SecretSource, resolve_secret};
pub use settings::{
    ApiSettings, BackendSettings, LogFormat, LogSettings, NbdSettings, NbdTls, NbdTlsClients,
    PluginSettings, Settings, StateSettings,
};
pub use sizes::{format_size, parse_size};

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
