// SPDX-License-Identifier: Apache-2.0
//! The driver's own commands: arguments and answers are JSON.

use std::time::Duration;

use driver_api::{
    Error, ErrorKind, Op, OpContext, RString, RVec, Result,
    ext::{CommandSpec, Commands},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    driver::CephBackend,
    error::{internal, invalid},
    store::Store,
};

/// Name, what it does, the arguments as an example, whether it changes anything.
const COMMANDS: [(&str, &str, &str, bool); 15] = [
    ("trash-list", "Shows what the pool's trash has.", "{}", false),
    (
        "trash-move",
        "Moves a volume into the trash and keeps it there for so long.",
        r#"{"volume":"v","keep_secs":86400}"#,
        true,
    ),
    (
        "trash-restore",
        "Gives a volume in the trash its name back, or another one.",
        r#"{"id":"10ab","name":"v"}"#,
        true,
    ),
    (
        "trash-remove",
        "Removes a volume in the trash for good; before its time only by force.",
        r#"{"id":"10ab","force":false}"#,
        true,
    ),
    (
        "trash-purge",
        "Removes what has expired in the trash, or all of it, and says what was skipped.",
        r#"{"all":false}"#,
        true,
    ),
    ("group-list", "Shows consistency groups and their volumes.", "{}", false),
    ("group-create", "Makes an empty group.", r#"{"group":"g"}"#, true),
    ("group-delete", "Removes a group, not its volumes.", r#"{"group":"g"}"#, true),
    ("group-add", "Puts a volume into a group.", r#"{"group":"g","volume":"v"}"#, true),
    ("group-remove", "Takes a volume out of a group.", r#"{"group":"g","volume":"v"}"#, true),
    (
        "group-snapshot",
        "Takes a snapshot of all volumes of a group; they must not be attached.",
        r#"{"group":"g","snapshot":"s"}"#,
        true,
    ),
    ("group-snapshots", "Shows the snapshots of a group.", r#"{"group":"g"}"#, false),
    (
        "group-snapshot-delete",
        "Removes a snapshot of a group.",
        r#"{"group":"g","snapshot":"s"}"#,
        true,
    ),
    (
        "group-snapshot-rollback",
        "Makes all volumes of a group what they were; they must not be attached.",
        r#"{"group":"g","snapshot":"s"}"#,
        true,
    ),
    ("mirror-status", "Shows how the pool is mirrored, and each of its volumes.", "{}", false),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrashMove {
    volume: String,
    #[serde(default)]
    keep_secs: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrashRestore {
    id: String,
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrashRemove {
    id: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TrashPurge {
    #[serde(default)]
    all: bool,
    expired_before_unix_secs: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfGroup {
    group: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    group: String,
    volume: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    group: String,
    snapshot: String,
}

/// Refuses names that RBD's tools take for something else, and those of the driver itself.
fn checked<'n>(what: &str, name: &'n str) -> Result<&'n str> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    if begins && name.len() <= 128 && name.chars().all(fits) {
        return Ok(name);
    }
    Err(invalid(format!("a {what} cannot have this name"))
        .with(what, name.escape_debug())
        .remedy("use 1 to 128 of A-Z a-z 0-9 . _ -, not beginning with a dot or hyphen"))
}

fn parse<T: DeserializeOwned>(arguments: &str, example: &str) -> Result<T> {
    serde_json::from_str(arguments).map_err(|error| {
        invalid(format!("the arguments do not fit: {error}"))
            .remedy(format!("write them like this: {example}"))
    })
}

fn answer(value: impl Serialize) -> Result<RString> {
    let text = serde_json::to_string(&value);
    text.map(RString::from).map_err(|error| internal("no answer in JSON").caused_by(&error))
}

fn run(store: &Store, command: &str, example: &str, arguments: &str) -> Result<RString> {
    match command {
        "trash-list" => {
            parse::<Nothing>(arguments, example)?;
            answer(store.trash_list()?)
        }
        "trash-move" => {
            let TrashMove { volume, keep_secs } = parse(arguments, example)?;
            let volume = checked("volume", &volume)?;
            answer(store.trash_move(volume, Duration::from_secs(keep_secs))?)
        }
        "trash-restore" => {
            let TrashRestore { id, name } = parse(arguments, example)?;
            let name = name.as_deref().map(|name| checked("volume", name)).transpose()?;
            let volume = store.trash_restore(&id, name)?;
            answer(serde_json::json!({ "id": id, "volume": volume }))
        }
        "trash-remove" => {
            let TrashRemove { id, force } = parse(arguments, example)?;
            answer(store.trash_remove(&id, force)?)
        }
        "trash-purge" => {
            let TrashPurge { all, expired_before_unix_secs } = parse(arguments, example)?;
            answer(store.trash_purge(all, expired_before_unix_secs)?)
        }
        "mirror-status" => {
            parse::<Nothing>(arguments, example)?;
            answer(store.mirror_status()?)
        }
        _ => run_on_groups(store, command, example, arguments),
    }
}

fn run_on_groups(store: &Store, command: &str, example: &str, arguments: &str) -> Result<RString> {
    let group = || {
        let OfGroup { group } = parse(arguments, example)?;
        checked("group", &group).map(str::to_owned)
    };
    let member = || {
        let Member { group, volume } = parse(arguments, example)?;
        checked("group", &group).and(checked("volume", &volume))?;
        Ok::<_, Error>((group, volume))
    };
    let snapshot = || {
        let Snapshot { group, snapshot } = parse(arguments, example)?;
        checked("group", &group).and(checked("snapshot", &snapshot))?;
        Ok::<_, Error>((group, snapshot))
    };
    match command {
        "group-list" => {
            parse::<Nothing>(arguments, example)?;
            answer(store.group_list()?)
        }
        "group-create" => answer(store.group_create(&group()?)?),
        "group-delete" => answer(store.group_delete(&group()?)?),
        "group-snapshots" => answer(store.group_snapshots(&group()?)?),
        "group-add" => {
            let (group, volume) = member()?;
            answer(store.group_add(&group, &volume)?)
        }
        "group-remove" => {
            let (group, volume) = member()?;
            answer(store.group_remove(&group, &volume)?)
        }
        "group-snapshot" => {
            let (group, snapshot) = snapshot()?;
            answer(store.group_snapshot(&group, &snapshot)?)
        }
        "group-snapshot-delete" => {
            let (group, snapshot) = snapshot()?;
            answer(store.group_snapshot_delete(&group, &snapshot)?)
        }
        "group-snapshot-rollback" => {
            let (group, snapshot) = snapshot()?;
            answer(store.group_snapshot_rollback(&group, &snapshot)?)
        }
        _ => Err(unknown(command)),
    }
}

fn unknown(command: &str) -> Error {
    let names = COMMANDS.map(|(name, ..)| name).join(", ");
    Error::new(ErrorKind::UNSUPPORTED, format!("there is no command `{command}`"))
        .remedy(format!("the commands are: {names}"))
}

impl Commands for CephBackend {
    fn list(&self) -> RVec<CommandSpec> {
        let spec = |(name, help, example, mutates): (&str, &str, &str, bool)| CommandSpec {
            name: name.into(),
            help: help.into(),
            example: example.into(),
            mutates,
        };
        COMMANDS.into_iter().map(spec).collect()
    }

    fn run(&self, cx: &OpContext, command: &str, arguments: &str) -> Op<RString> {
        let Some((name, _, example, _)) = COMMANDS.into_iter().find(|(name, ..)| *name == command)
        else {
            return Op::err(unknown(command));
        };
        let arguments = arguments.to_owned();
        self.on_store(cx, name, move |store| run(store, name, example, &arguments))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_known_and_names_make_sense() {
        let example = COMMANDS[1].2;
        parse::<TrashMove>(example, example).map(drop).expect("the example fits");
        let error = parse::<TrashMove>(r#"{"volume":"v","colour":1}"#, example).err();
        assert!(error.expect("refused").remedy_text().contains(example));
        for name in ["", ".hidden", "-v", "a/b", "a@b", "a b", "ä"] {
            assert!(checked("volume", name).is_err(), "{name}");
        }
        checked("volume", "a-1_b.c").expect("a name");
    }
}
