// SPDX-License-Identifier: Apache-2.0
//! The host's keys as data: name, type, default and help of each.

use driver_api::{OptionSpec, OptionType, ROption};

/// One key of the configuration, for help and documentation.
#[derive(Clone, Debug)]
pub struct KeyHelp {
    /// The key with its section: `nbd.max_connections`.
    pub key: String,
    /// The type's name.
    pub kind: &'static str,
    /// The default as it would be written; empty for none.
    pub default: String,
    /// One sentence.
    pub help: String,
}

/// A key of a section, with the place of its default below one of the directories, if that is where it is.
pub(super) struct Key {
    /// Empty for the keys above all sections.
    pub(super) section: &'static str,
    pub(super) spec: OptionSpec,
    /// The directory's key and the path below it.
    pub(super) below: Option<(&'static str, &'static str)>,
    /// The smallest and largest number allowed.
    pub(super) within: Option<(i64, i64)>,
}

impl Key {
    fn new(section: &'static str, name: &str, kind: OptionType, help: &str) -> Self {
        Self { section, spec: OptionSpec::new(name, kind, help), below: None, within: None }
    }

    fn default(mut self, json: &str) -> Self {
        self.spec = self.spec.default_json(json);
        self
    }

    fn below(mut self, directory: &'static str, name: &'static str) -> Self {
        self.below = Some((directory, name));
        self
    }

    fn within(mut self, least: i64, most: i64) -> Self {
        self.within = Some((least, most));
        self
    }

    fn choices(mut self, choices: &[&str]) -> Self {
        self.spec = self.spec.choices(choices);
        self
    }

    /// The key with its section.
    pub(super) fn path(&self) -> Vec<&str> {
        [self.section, self.spec.name.as_str()]
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect()
    }
}

/// Sections whose keys are names that the operator chooses.
pub(super) const NAMED_SECTIONS: [&str; 2] = ["backends", "secrets"];
/// The directories come first: others' defaults lie below them.
pub(super) const RUNTIME_DIR: &str = "runtime_dir";
pub(super) const STATE_DIR: &str = "state_dir";

/// Every fixed key, directories first.
pub(super) fn keys() -> Vec<Key> {
    let (integer, path, text) = (OptionType::INTEGER, OptionType::PATH, OptionType::TEXT);
    vec![
        Key::new("", RUNTIME_DIR, path, "Where sockets live.").default("\"/run/novastor\""),
        Key::new("", STATE_DIR, path, "Where files that outlive the process live.")
            .default("\"/var/lib/novastor\""),
        Key::new("", "active", text, "The backend for volumes that name none."),
        Key::new("plugins", "dir", path, "The directory that is watched for drivers.")
            .default("\"/usr/lib/novastor/plugins.d\""),
        Key::new(
            "plugins",
            "private_dir",
            path,
            "The directory for the copies that are loaded; not on a file system mounted noexec.",
        )
        .below(STATE_DIR, "plugins"),
        Key::new(
            "plugins",
            "allow_sha256",
            OptionType::TEXTS,
            "The SHA-256 of each driver that may be loaded; empty: any.",
        )
        .default("[]"),
        Key::new("state", "path", path, "The file of the key-value state.")
            .below(STATE_DIR, "state.redb"),
        Key::new("api", "socket", path, "The unix socket of the management API.")
            .below(RUNTIME_DIR, "api.sock"),
        Key::new("api", "mode", integer, "The mode of that socket, in octal: 0o660.")
            .default("432"),
        Key::new("nbd", "socket", path, "The unix socket of the NBD export.")
            .below(RUNTIME_DIR, "nbd.sock"),
        Key::new("nbd", "mode", integer, "The mode of that socket, in octal; api.mode if none."),
        Key::new("nbd", "listen", OptionType::TEXTS, "Addresses with ports for NBD over TCP.")
            .default("[]"),
        Key::new("nbd", "tls", OptionType::CHOICE, "TLS over TCP.")
            .choices(&["off", "offer", "require"])
            .default("\"require\""),
        Key::new("nbd", "tls_certificate", path, "The NBD server's certificate, in PEM."),
        Key::new("nbd", "tls_key", path, "The certificate's key, in PEM."),
        Key::new("nbd", "tls_client_ca", path, "The authorities of clients' certificates, in PEM."),
        Key::new(
            "nbd",
            "tls_clients",
            OptionType::CHOICE,
            "Whether NBD clients show certificates; with tls_client_ca they must, without they cannot.",
        )
        .choices(&["none", "offer", "require"]),
        Key::new("nbd", "max_connections", integer, "NBD connections at once.")
            .default("256")
            .within(1, 65_536),
        Key::new("nbd", "max_in_flight", integer, "Operations in flight on one NBD connection.")
            .default("128")
            .within(1, 65_536),
        Key::new("nbd", "busy_poll", integer, "Microseconds of polling before a sleep; 0: none.")
            .default("50")
            .within(0, 1000),
        Key::new("log", "filter", text, "What is logged, as RUST_LOG (which wins) has it.")
            .default("\"info\""),
        Key::new("log", "format", OptionType::CHOICE, "How log records are written.")
            .choices(&["text", "json"])
            .default("\"text\""),
    ]
}

/// The keys of `[backends.NAME]` that are the host's own.
pub(super) fn backend_keys() -> [OptionSpec; 2] {
    [
        OptionSpec::new("driver", OptionType::TEXT, "The driver's name.").required(),
        OptionSpec::new("layers", OptionType::TEXTS, "Layers over each volume; none so far.")
            .default_json("[]"),
    ]
}

/// Every key that the host itself knows. A backend's further keys are its driver's options.
pub fn describe_keys() -> Vec<KeyHelp> {
    let fixed = keys().into_iter().map(|key| KeyHelp {
        key: key.path().join("."),
        kind: key.spec.kind.name(),
        default: match (&key.below, &key.spec.default) {
            (Some((directory, name)), _) => format!("{{{directory}}}/{name}"),
            (None, ROption::RSome(_)) if key.spec.name == "mode" => "0o660".into(),
            (None, ROption::RSome(json)) => json.to_string(),
            (None, ROption::RNone) => String::new(),
        },
        help: key.spec.help.into(),
    });
    let named = [
        (
            "secrets.NAME",
            "table",
            "Where a secret is: { file = … }, { env = … } or { credential = … }.",
        ),
        ("backends.NAME.driver", "text", "The driver's name. Required."),
        ("backends.NAME.layers", "list of texts", "Layers over each volume; none so far."),
    ];
    let named = named.into_iter().map(|(key, kind, help)| KeyHelp {
        key: key.into(),
        kind,
        default: String::new(),
        help: help.into(),
    });
    fixed.chain(named).collect()
}
