// SPDX-License-Identifier: Apache-2.0
//! The table of faults: what is changed in a sound configuration, and which words the answer must have.

use std::{fs, io, path::Path};

/// A fault in a configuration.
pub(super) struct Fault {
    /// What is wrong, in a few words.
    pub name: &'static str,
    /// A text of the sound configuration and what stands there instead; an empty text appends.
    edit: (&'static str, &'static str),
    /// What lies around the configuration.
    around: Around,
    /// A variable of the environment.
    pub variable: Option<(&'static str, &'static str)>,
    /// What the answer must name: file, key, cause and remedy.
    pub words: &'static [&'static str],
}

enum Around {
    Sound,
    /// A file with this name, relative to the configuration, and this content.
    File(&'static str, &'static str),
    /// No file of this name.
    Gone(&'static str),
}

impl Fault {
    const fn edit(
        name: &'static str,
        edit: (&'static str, &'static str),
        words: &'static [&'static str],
    ) -> Self {
        Self { name, edit, around: Around::Sound, variable: None, words }
    }

    const fn around(name: &'static str, around: Around, words: &'static [&'static str]) -> Self {
        Self { name, edit: ("", ""), around, variable: None, words }
    }

    const fn variable(
        name: &'static str,
        variable: (&'static str, &'static str),
        words: &'static [&'static str],
    ) -> Self {
        Self { name, edit: ("", ""), around: Around::Sound, variable: Some(variable), words }
    }

    /// The faulty text.
    pub fn apply(&self, sound: &str) -> Result<String, String> {
        let (old, new) = self.edit;
        if old.is_empty() {
            return Ok(sound.to_owned() + new);
        }
        if !sound.contains(old) {
            return Err(format!("{}: the sound configuration has no {old:?}", self.name));
        }
        Ok(sound.replacen(old, new, 1))
    }

    /// Changes what lies around the configuration in `room`.
    pub fn arrange(&self, room: &Path) -> io::Result<()> {
        match self.around {
            Around::Sound => Ok(()),
            Around::File(name, text) => fs::write(room.join(name), text),
            Around::Gone(name) => fs::remove_file(room.join(name)),
        }
    }
}

pub(super) const FAULTS: &[Fault] = &[
    Fault::edit("unknown key", ("active =", "actve ="), &["host.toml", "actve", "active"]),
    Fault::edit(
        "unknown key in a table",
        ("[nbd]\nsocket", "[nbd]\nsockt"),
        &["host.toml", "nbd.sockt", "socket"],
    ),
    Fault::edit("unknown table", ("[state]", "[stat]"), &["host.toml", "stat", "state"]),
    Fault::edit(
        "number for a path",
        ("[nbd]\nsocket =", "[nbd]\nsocket = 5 #"),
        &["host.toml", "nbd.socket", "path"],
    ),
    Fault::edit(
        "text for a number",
        ("[nbd]\n", "[nbd]\nmax_connections = \"many\"\n"),
        &["host.toml", "nbd.max_connections", "integer", "whole number"],
    ),
    Fault::edit(
        "number out of range",
        ("[nbd]\n", "[nbd]\nmax_connections = 0\n"),
        &["host.toml", "nbd.max_connections", "65536"],
    ),
    Fault::edit(
        "number for a list",
        ("[plugins]\n", "[plugins]\nallow_sha256 = 7\n"),
        &["host.toml", "plugins.allow_sha256", "list"],
    ),
    Fault::variable("number for a table", ("NOVASTOR__API", "7"), &["NOVASTOR__API", "section"]),
    Fault::edit(
        "no such choice",
        ("[nbd]", "[log]\nformat = \"jsn\"\n[nbd]"),
        &["host.toml", "log.format", "jsn", "json"],
    ),
    Fault::edit("broken syntax", ("active = \"disk\"", "active = \"disk"), &["host.toml:1"]),
    Fault::edit(
        "key given twice",
        ("active = \"disk\"", "active = \"disk\"\nactive = \"disk\""),
        &["host.toml", "active"],
    ),
    Fault::edit(
        "active backend unknown",
        ("active = \"disk\"", "active = \"dsk\""),
        &["host.toml", "active", "dsk", "disk"],
    ),
    Fault::edit("no driver", ("driver = \"local\"", ""), &["host.toml", "backends.disk.driver"]),
    Fault::edit(
        "driver unknown",
        ("\"local\"", "\"locl\""),
        &["host.toml", "backends.disk", "locl", "local"],
    ),
    Fault::edit(
        "unknown driver option",
        ("[backends.disk]", "[backends.disk]\ndri = \"x\""),
        &["host.toml", "backends.disk.dri", "dir"],
    ),
    Fault::edit(
        "driver option of wrong type",
        ("\"local\"\ndir =", "\"local\"\ndir = 5 #"),
        &["host.toml", "backends.disk.dir", "path"],
    ),
    Fault::edit(
        "driver option missing",
        ("\"local\"\ndir", "\"local\"\n#"),
        &["host.toml", "backends.disk.dir"],
    ),
    Fault::edit(
        "backend name escapes",
        ("", "\n[backends.\"../x\"]\ndriver = \"local\"\ndir = \"/srv/x\"\n"),
        &["host.toml", "../x", "A-Z"],
    ),
    Fault::edit(
        "unknown source of a secret",
        ("", "\n[secrets]\nkey = { fiel = \"/srv/key\" }\n"),
        &["host.toml", "secrets.key", "fiel", "file"],
    ),
    Fault::around(
        "configuration missing",
        Around::Gone("host.toml"),
        &["host.toml", "does not exist", "create the file"],
    ),
    Fault::around(
        "unknown key in conf.d",
        Around::File("conf.d/50-site.toml", "[nbd]\nsockte = \"x\"\n"),
        &["50-site.toml", "nbd.sockte", "socket"],
    ),
    Fault::around(
        "wrong type in conf.d",
        Around::File("conf.d/50-site.toml", "active = 3\n"),
        &["50-site.toml", "active", "text"],
    ),
    Fault::variable(
        "unknown key in the environment",
        ("NOVASTOR__NBD__SOCKTE", "x"),
        &["NOVASTOR__NBD__SOCKTE", "nbd", "socket"],
    ),
    Fault::variable(
        "wrong type in the environment",
        ("NOVASTOR__NBD__MAX_CONNECTIONS", "many"),
        &["NOVASTOR__NBD__MAX_CONNECTIONS", "integer"],
    ),
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use super::FAULTS;
    use crate::host::configuration;

    #[test]
    fn there_are_twenty_and_each_changes_something() {
        assert!(FAULTS.len() >= 20);
        let names: BTreeSet<_> = FAULTS.iter().map(|fault| fault.name).collect();
        assert_eq!(names.len(), FAULTS.len());
        let sound = configuration(Path::new("/srv/x"));
        for fault in FAULTS {
            let text = fault.apply(&sound).unwrap();
            let around = !matches!(fault.around, super::Around::Sound) || fault.variable.is_some();
            assert_eq!(text == sound, around, "{}", fault.name);
        }
    }
}
