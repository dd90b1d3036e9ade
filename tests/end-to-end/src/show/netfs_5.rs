// SPDX-License-Identifier: Apache-2.0
//! Names that lead elsewhere, that are no names, that differ in case alone, and links out of a share: refused, or kept apart,
//! and nothing on the server is touched.

mod before;

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use before::Before;

use super::Stage;
use crate::{
    failure::{Context, Outcome, ensure},
    host::Host,
    nbd::Command,
    netfs::{Netfs, Server, WAYS, Way},
    program::Program,
};

const MIB: u64 = 1 << 20;
const SECTOR: u32 = 512;
/// What the files hold that nobody may change.
const OUTSIDE: u8 = 9;

/// How the command line ends when what was typed is wrong, or a thing is not there.
const INVALID: i32 = 2;
const NOT_FOUND: i32 = 3;

/// Directories in a share that are none.
const PATHS: [&str; 13] = [
    "..",
    "a/../..",
    ".",
    "./a",
    "/",
    "/etc",
    "a//b",
    "a/",
    "a\\\\..\\\\b",
    "a\\u0001b",
    "a:b",
    "a/con",
    "a. /b",
];

pub(super) fn play(stage: &Stage) -> Outcome {
    let servers = Netfs::start(&stage.path("servers"))?;
    // The long form asks each version, the short one each protocol.
    let ways: &[Way] = if stage.is_long() { &WAYS } else { &[Way::Nfs3, Way::Nfs41, Way::Smb] };
    let mut host = servers.host(&stage.artifacts, ways, "")?;
    for way in ways {
        let scene = Names { stage, servers: &servers, host: &host, way: *way };
        scene.play().context(way.name())?;
    }
    host.stop()
}

struct Names<'s> {
    stage: &'s Stage,
    servers: &'s Netfs,
    host: &'s Host,
    way: Way,
}

impl Names<'_> {
    fn play(&self) -> Outcome {
        let paths = self.directories().context("directories")?;
        let volumes = self.volumes().context("volumes")?;
        let foreign = self.foreign_files().context("files that are no volumes")?;
        self.links().context("links")?;
        self.cases().context("names that differ in case alone")?;
        self.stage.tell(format!(
            "{}: {paths} directories and {volumes} names of volumes refused, {foreign} files left alone, links led nowhere, \
             and `a` is not `A`; nothing else on the server changed",
            self.way.name()
        ));
        Ok(())
    }

    fn files(&self) -> Outcome<PathBuf> {
        self.servers.files(self.way)
    }

    /// The share, and what lies beside it on the server.
    fn before(&self) -> Outcome<Before> {
        Before::of(
            self.servers.directory(),
            &["export", "share", "encrypted", "outside", "readonly"],
        )
    }

    /// Fails unless the host refuses this with one of these codes, and nothing has changed.
    fn refused(&self, words: &[&str], codes: &[i32]) -> Outcome<String> {
        let before = self.before()?;
        let said = self.host.cli().ask().args(words).codes(&[]).run()?;
        ensure(codes.contains(&said.code), || {
            format!("{words:?} ended with {}: {}{}", said.code, said.stdout, said.stderr)
        })?;
        before.is_unchanged().context(format!("{words:?}"))?;
        Ok(said.stderr)
    }

    /// Directories of a share that lead out of it, or are no names.
    fn directories(&self) -> Outcome<usize> {
        let config = self.stage.path("path.toml");
        let before = self.before()?;
        for path in PATHS {
            let more = format!("path = \"{path}\"\n");
            let text = self.servers.secrets() + &self.servers.section("nas", self.way, &more)?;
            fs::write(&config, text).context(config.display())?;
            let program = Program::new(self.stage.artifacts.host()?);
            let driver = self.stage.artifacts.netfs()?;
            let said = program
                .args(["driver", "check"])
                .arg(driver)
                .arg("--config")
                .arg(&config)
                .codes(&[])
                .run()?;
            let text = said.stdout + &said.stderr;
            ensure(said.code == INVALID && text.contains("name for a file"), || {
                format!("path {path:?} ended with {}: {text}", said.code)
            })?;
        }
        before.is_unchanged()?;
        Ok(PATHS.len())
    }

    /// Names that the host refuses, and names that only the driver knows to be none.
    fn volumes(&self) -> Outcome<usize> {
        let long = "x".repeat(300);
        let names = [
            "..",
            ".",
            "../outside/secret",
            "a/b",
            "a\\b",
            "a\nb",
            "a\u{7f}b",
            "a:b",
            "a b",
            "ü",
            "-a",
            ".hidden",
            long.as_str(),
            "con",
            "NUL",
            "com1.raw",
            "LPT9",
            "aux.x",
        ];
        let backend = self.way.name();
        for name in names {
            let create =
                ["volume", "create", "--size", "1048576", "--backend", backend, "--", name];
            self.refused(&create, &[INVALID])?;
            // What cannot be has not been made either.
            let adopt = ["volume", "adopt", "--backend", backend, "--", name];
            self.refused(&adopt, &[INVALID, NOT_FOUND])?;
        }
        Ok(names.len())
    }

    /// Files on the share whose names are no volumes' names are neither listed nor touched.
    fn foreign_files(&self) -> Outcome<usize> {
        let (room, backend) = (self.files()?, self.way.name());
        let names = [
            "line\nbreak.raw",
            "bell\u{7}.raw",
            "-option.raw",
            ".hidden.raw",
            "ü.raw",
            "notes.txt",
            "pipe.raw",
            "directory.raw",
        ];
        for name in names {
            let path = room.join(name);
            match name {
                "pipe.raw" => Program::new("mkfifo").arg(&path).run().map(drop)?,
                "directory.raw" => fs::create_dir(&path).context(name)?,
                _ => fs::write(&path, [OUTSIDE; 4096]).context(name)?,
            }
        }
        let before = self.before()?;
        let listed =
            self.host.cli().ask().args(["volume", "list", "--unmanaged", "--output", "json"]);
        let listed = listed.run()?.stdout;
        for name in ["break", "bell", "option", "hidden", "notes", "pipe", "directory"] {
            if !self.looks_regular(name) {
                ensure(!listed.contains(name), || format!("{name:?} is listed: {listed}"))?;
            }
        }
        for name in ["pipe", "directory"].into_iter().filter(|name| !self.looks_regular(name)) {
            self.refused(&["volume", "adopt", name, "--backend", backend], &[INVALID, NOT_FOUND])?;
            let size = ["--size", "1048576"];
            let create = [&["volume", "create", name, "--backend", backend], &size[..]].concat();
            let said = self.host.cli().ask().args(create).codes(&[]).run()?;
            ensure(said.code != 0, || format!("{name} was made: {}", said.stdout))?;
        }
        before.is_unchanged()?;
        for name in names {
            let path = room.join(name);
            let removed =
                if path.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
            removed.context(name)?;
        }
        Ok(names.len())
    }

    /// To its clients Samba shows a pipe as an empty file: they cannot know.
    fn looks_regular(&self, name: &str) -> bool {
        name == "pipe" && self.way.server() == Server::Samba
    }

    /// Links out of the share, as files and as directories on the way.
    fn links(&self) -> Outcome {
        let (room, backend) = (self.files()?, self.way.name());
        let outside = self.servers.directory().join("outside");
        fs::create_dir_all(&outside).context("outside")?;
        let secret = outside.join("secret.raw");
        fs::write(&secret, vec![OUTSIDE; 1 << 20]).context("secret")?;
        symlink(&secret, room.join("link.raw")).context("a link to a file")?;
        symlink("../outside/nothing.raw", room.join("dangling.raw"))
            .context("a link to nothing")?;
        symlink(&outside, room.join("way")).context("a link to a directory")?;
        let before = self.before()?;
        for name in ["link", "dangling"] {
            self.fails(&["volume", "adopt", name, "--backend", backend])?;
            self.fails(&["volume", "create", name, "--size", "1048576", "--backend", backend])?;
            before.is_unchanged().context(name)?;
        }
        let config = self.stage.path("link.toml");
        let section = self.servers.section("nas", self.way, "path = \"way\"\n")?;
        fs::write(&config, self.servers.secrets() + &section).context(config.display())?;
        let said = Program::new(self.stage.artifacts.host()?)
            .args(["driver", "check"])
            .arg(self.stage.artifacts.netfs()?)
            .arg("--config")
            .arg(&config)
            .codes(&[])
            .run()?;
        ensure(said.code != 0, || format!("a link was walked through: {}", said.stdout))?;
        before.is_unchanged().context("a link to a directory")?;
        for name in ["link.raw", "dangling.raw", "way"] {
            fs::remove_file(room.join(name)).context(name)?;
        }
        Ok(())
    }

    fn fails(&self, words: &[&str]) -> Outcome {
        let said = self.host.cli().ask().args(words).codes(&[]).run()?;
        ensure(said.code != 0, || format!("{words:?} is no error: {}", said.stdout))
    }

    /// Volumes whose names differ in case alone are two, whatever the server makes of it; a file of another case is no volume
    /// of this name.
    fn cases(&self) -> Outcome {
        let backend = self.way.name();
        let names = [("case", 1_u8), ("Case", 2), ("CASE", 3)]
            .map(|(name, value)| (format!("{name}-{backend}"), value));
        for (name, value) in &names {
            self.host.cli().create_volume(name, MIB, Some(backend), &[])?;
            self.host.cli().add_export(name)?;
            let mut client = self.host.connect(name)?;
            let data = vec![*value; SECTOR as usize];
            client.call(Command::Write { fua: true }, 0, SECTOR, &data).context("write")?;
        }
        for (name, value) in &names {
            let mut client = self.host.connect(name)?;
            let read = client.call(Command::Read, 0, SECTOR, &[]).context("read")?;
            ensure(read == vec![*value; SECTOR as usize], || format!("{name} holds {}", read[0]))?;
        }
        for (name, _) in &names {
            self.host.cli().ask().args(["export", "remove", name]).run()?;
            self.host.cli().ask().args(["volume", "delete", name]).run()?;
        }
        self.empty("case")?;
        let foreign = self.files()?.join("FOREIGN.raw");
        fs::write(&foreign, vec![OUTSIDE; 1 << 20]).context("a file")?;
        let before = self.before()?;
        self.fails(&["volume", "adopt", "foreign", "--backend", backend])?;
        before.is_unchanged().context("a file of another case")?;
        fs::remove_file(&foreign).context("a file")
    }

    /// Fails if a file is left whose name begins like this, in any case.
    fn empty(&self, begin: &str) -> Outcome {
        let room = self.files()?;
        let names = list(&room)?;
        let left: Vec<_> =
            names.iter().filter(|name| name.to_lowercase().starts_with(begin)).collect();
        ensure(left.is_empty(), || format!("after deleting there are still {left:?}"))
    }
}

fn list(room: &Path) -> Outcome<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(room).context(room.display())? {
        let name = entry.context(room.display())?.file_name();
        names.push(name.to_string_lossy().into_owned());
    }
    Ok(names)
}
