// SPDX-License-Identifier: Apache-2.0
//! The netfs driver keeps every promise of a volume, asked of it on each protocol against nfs-ganesha and Samba; the abilities
//! that it claims and shows on each stand beside each other, with the version that was spoken.

use std::{fs, thread};

use serde_json::json;

use super::Stage;
use crate::{
    cli::Cli,
    failure::{Context, Failure, Outcome, ensure},
    netfs::{Netfs, WAYS, Way},
};

const MIB: u64 = 1 << 20;

/// What the servers here have nowhere, so that it was never seen to work: the driver falls back where it fails.
const UNPROVEN: &str =
    "unproven: CLONE and COPY of NFSv4.2, duplicate extents of SMB; no server here offers them";

/// What is checked.
#[derive(Clone, Copy)]
struct Subject {
    name: &'static str,
    way: Way,
    /// More options of the backend.
    options: &'static str,
}

/// Volumes on each protocol, and what gives space back where the server frees no ranges.
fn subjects() -> Vec<Subject> {
    let plain = WAYS.iter().map(|way| Subject { name: way.name(), way: *way, options: "" });
    let options = "layout = \"extents\"\nextent_size = \"1MiB\"\n";
    let extents = Subject { name: "nfs3-extents", way: Way::Nfs3, options };
    plain.chain([extents]).collect()
}

/// What came of the check of one subject.
struct Column {
    name: &'static str,
    /// Each ability, in the check's order, and whether it is claimed and shown.
    abilities: Vec<(String, &'static str)>,
    fencing: String,
    passed: String,
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let servers = Netfs::start(&stage.path("servers"))?;
    let rounds: &[&[&str]] =
        if stage.is_long() { &[&[], &["--long", "--seed", "2"]] } else { &[&[]] };
    for more in rounds {
        let mut columns = Vec::new();
        // Most of a check is waiting, for leases above all.
        let checked: Vec<Outcome<Column>> = thread::scope(|scope| {
            let check = |one: Subject| check(stage, &servers, one, more).context(one.name);
            let begin = |one| scope.spawn(move || check(one));
            let running: Vec<_> = subjects().into_iter().map(begin).collect();
            let panicked = |_| Err(Failure::new("a check panicked"));
            running.into_iter().map(|check| check.join().unwrap_or_else(panicked)).collect()
        });
        for column in checked {
            let column = column?;
            stage.tell(format!("{}: {}", column.name, column.passed));
            columns.push(column);
        }
        stage.tell_all(&matrix(&columns)?);
    }
    stage.tell(UNPROVEN);
    spoken(stage, &servers)
}

fn check(stage: &Stage, servers: &Netfs, one: Subject, more: &[&str]) -> Outcome<Column> {
    let Subject { name, way, options } = one;
    // Each has a directory of its own: names of volumes are the same in each check.
    let room = servers.files(way)?.join(name);
    fs::create_dir_all(&room).context(room.display())?;
    let config = stage.path(&format!("{name}.toml"));
    let more_options = format!("path = \"{name}\"\n{options}");
    let text = servers.secrets() + &servers.section("nas", way, &more_options)?;
    fs::write(&config, text).context(config.display())?;
    let cli = Cli::new(&stage.artifacts.host()?, &stage.path("no.sock"));
    let said = cli.check_driver_with(&stage.artifacts.netfs()?, &config, more)?;
    let column = read(name, &said.stdout)?;
    ensure(column.passed.contains(" checks passed, 0 failed"), || column.passed.clone())?;
    Ok(column)
}

/// Reads the table at the end of a check.
fn read(name: &'static str, said: &str) -> Outcome<Column> {
    let mut lines = said.lines().skip_while(|line| !line.starts_with("ability "));
    let head = lines.next();
    head.ok_or_else(|| Failure::new(format!("the check shows no abilities:\n{said}")))?;
    let (mut abilities, mut fencing) = (Vec::new(), String::new());
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["fencing", how] => {
                how.clone_into(&mut fencing);
                break;
            }
            [name, "yes", "yes"] => abilities.push((name.to_owned(), "shown")),
            [name, "-", "-"] => abilities.push((name.to_owned(), "-")),
            _ => return Err(Failure::new(format!("claimed, but not shown: {line}"))),
        }
    }
    let passed = said.lines().last().unwrap_or_default().to_owned();
    ensure(!abilities.is_empty() && !fencing.is_empty(), || format!("no table:\n{said}"))?;
    Ok(Column { name, abilities, fencing, passed })
}

/// One line an ability, one column a protocol; and what none of the servers here could show.
fn matrix(columns: &[Column]) -> Outcome<String> {
    let line = |name: &str, cells: Vec<&str>| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:>16}")).collect();
        format!("{name:<16}{cells}\n")
    };
    let mut text = line("ability", columns.iter().map(|column| column.name).collect());
    let first = columns.first().ok_or_else(|| Failure::new("nothing was checked"))?;
    let mut unproven = Vec::new();
    for (row, (name, _)) in first.abilities.iter().enumerate() {
        let cells: Vec<&str> = columns.iter().map(|column| column.abilities[row].1).collect();
        if cells.iter().all(|cell| *cell == "-") {
            unproven.push(name.as_str());
        } else {
            text += &line(name, cells);
        }
    }
    text += &line("fencing", columns.iter().map(|column| column.fencing.as_str()).collect());
    text += &format!("on none of these servers: {}\n", unproven.join(", "));
    Ok(text)
}

/// Tells which version is spoken on each, and why not a better one.
fn spoken(stage: &Stage, servers: &Netfs) -> Outcome {
    let mut host = servers.host(&stage.artifacts, &WAYS, "")?;
    for way in WAYS {
        host.cli().create_volume(&format!("on-{}", way.name()), MIB, Some(way.name()), &[])?;
        let mounts = host.cli().run_on_backend(way.name(), "mounts", &json!({}))?;
        let (protocol, reason) = (&mounts[0]["protocol"], &mounts[0]["reason"]);
        let said = format!("{protocol} {reason}");
        let (wanted, but) = match way {
            Way::Nfs3 => ("NFSv3", "fell back"),
            Way::Nfs40 => ("NFSv4.0", "fell back"),
            Way::Nfs41 => ("NFSv4.1", "fell back"),
            // The best that the server has; if that is not the best, it says why.
            Way::Nfs42 if said.contains("NFSv4.2") => ("NFSv4.2", "fell back"),
            Way::Nfs42 => ("fell back", "4.0"),
            Way::Smb => ("signed", "encrypted"),
            Way::SmbEncrypted => ("encrypted", "signed"),
        };
        ensure(said.contains(wanted) && !said.contains(but), || {
            format!("{}: expected {wanted}, not {but}: {said}", way.name())
        })?;
        stage.tell(format!("{}: {said}", way.name()));
    }
    host.stop()
}

#[cfg(test)]
mod tests {
    use super::{matrix, read};

    const SAID: &str = "ok           io/read (1 ms): reads\nability          claimed  shown\nwrite            yes      yes\n\
        clones           -        -\nfencing          none\n61 checks passed, 0 failed, 9 not claimed";

    #[test]
    fn the_tables_of_checks_stand_beside_each_other() {
        let (one, other) = (read("nfs3", SAID).unwrap(), read("smb", SAID).unwrap());
        assert_eq!(one.passed, "61 checks passed, 0 failed, 9 not claimed");
        let text = matrix(&[one, other]).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with("write ") && lines[1].matches("shown").count() == 2);
        assert_eq!(lines[3], "on none of these servers: clones");
    }

    #[test]
    fn what_is_claimed_and_not_shown_is_a_failure() {
        let said = SAID.replace("write            yes      yes", "write            yes      NO");
        assert!(read("nfs3", &said).is_err());
        assert!(read("nfs3", "nothing").is_err());
    }
}
