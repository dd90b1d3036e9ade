// SPDX-License-Identifier: Apache-2.0
//! The commands of `novastor bucket` and `novastor object`, as users type them, for one backend of a host.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::Signed;
use crate::{
    cli::Cli,
    failure::{Context, Failure, Outcome, ensure},
    program::{Program, Said},
    random::Random,
};

/// A backend of a host, by its command line.
#[derive(Clone, Debug)]
pub struct Front {
    cli: Cli,
    backend: String,
    /// Where commands keep what they need to go on with a transfer.
    state: PathBuf,
}

impl Front {
    /// This backend; commands keep their state in this directory.
    pub fn new(cli: &Cli, backend: &str, state: &Path) -> Self {
        Self { cli: cli.clone(), backend: backend.to_owned(), state: state.to_owned() }
    }

    /// The backend's name.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// A command, to be completed.
    pub fn ask(&self, words: &[&str]) -> Program {
        let program = self.cli.ask().args(words).args(["--backend", &self.backend]);
        // A Keystone that is asked about every request takes its time.
        let program = program.limit_secs(300);
        program.env("XDG_STATE_HOME", &self.state)
    }

    /// A command that has to succeed.
    ///
    /// # Errors
    /// When it does not.
    pub fn run(&self, words: &[&str]) -> Outcome<Said> {
        self.ask(words).run()
    }

    /// A command, whatever its end.
    ///
    /// # Errors
    /// When it does not start, or takes too long.
    pub fn attempt(&self, words: &[&str]) -> Outcome<Said> {
        self.ask(words).codes(&[]).run()
    }

    /// What a command says in JSON.
    ///
    /// # Errors
    /// When it fails, or says something else.
    pub fn json(&self, words: &[&str]) -> Outcome<Value> {
        let said = self.ask(words).args(["--output", "json"]).run()?;
        serde_json::from_str(&said.stdout).context(format!("{words:?} said {}", said.stdout))
    }

    /// What a command says to whoever is refused, with one of these codes.
    ///
    /// # Errors
    /// When it succeeds, or ends with another code.
    pub fn refused(&self, words: &[&str], codes: &[i32]) -> Outcome<String> {
        let said = self.attempt(words)?;
        ensure(codes.contains(&said.code), || {
            format!(
                "{words:?} ended with {}, not {codes:?}: {}{}",
                said.code, said.stdout, said.stderr
            )
        })?;
        Ok(said.stderr)
    }

    /// `object put`, with more words.
    ///
    /// # Errors
    /// When it fails.
    pub fn put(&self, file: &Path, to: &str, more: &[&str]) -> Outcome<Said> {
        self.ask(&["object", "put"]).arg(file).arg(to).args(more).limit_secs(900).run()
    }

    /// `object get`, with more words.
    ///
    /// # Errors
    /// When it fails.
    pub fn get(&self, from: &str, file: &Path, more: &[&str]) -> Outcome<Said> {
        self.ask(&["object", "get", from]).arg(file).args(more).limit_secs(900).run()
    }

    /// `object sign`.
    ///
    /// # Errors
    /// When it fails, or what it gives cannot be read.
    pub fn sign(&self, object: &str, method: &str, expires: &str) -> Outcome<Signed> {
        self.sign_with(object, &["--method", method, "--expires", expires])
    }

    /// The same with these words.
    ///
    /// # Errors
    /// When it fails, or what it gives cannot be read.
    pub fn sign_with(&self, object: &str, words: &[&str]) -> Outcome<Signed> {
        Signed::read(&self.json(&[&["object", "sign", object], words].concat())?)
    }

    /// What a key of `object head` has.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn head(&self, object: &str) -> Outcome<Value> {
        self.json(&["object", "head", object])
    }

    /// Whether an object is there.
    ///
    /// # Errors
    /// When the store does not say.
    pub fn has(&self, object: &str) -> Outcome<bool> {
        const NOT_FOUND: i32 = 3;
        Ok(self.ask(&["object", "head", object]).codes(&[0, NOT_FOUND]).run()?.code == 0)
    }

    /// The keys of a bucket that begin like this, in the order of the listing.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub fn keys(&self, bucket: &str, prefix: &str) -> Outcome<Vec<String>> {
        keys(&self.json(&["object", "list", bucket, "--prefix", prefix])?)
    }

    /// The uploads of a bucket that were begun and not ended, and the keys of their objects.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn uploads(&self, bucket: &str) -> Outcome<Vec<(String, String)>> {
        let answer = self.json(&["bucket", "uploads", bucket])?;
        let list = answer.as_array().or_else(|| answer["uploads"].as_array());
        let list = list.ok_or_else(|| Failure::new(format!("no list of uploads: {answer}")))?;
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        Ok(list.iter().map(|one| (text(one, "key"), text(one, "id"))).collect())
    }

    /// What a path below `/v1/backends/NAME/` of the management API answers.
    ///
    /// # Errors
    /// When it is an error, or no JSON.
    pub fn api(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let url = format!("http://novastor/v1/backends/{}/{path}", self.backend);
        let mut curl = Program::new("curl").args(["-sS", "--fail-with-body", "-X", method]);
        curl = curl.arg("--unix-socket").arg(self.cli.socket());
        if let Some(body) = body {
            curl = curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let said = curl.arg(&url).codes(&[]).run()?;
        ensure(said.code == 0, || format!("{method} {path}: {}{}", said.stdout, said.stderr))?;
        if said.stdout.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&said.stdout).context(format!("{method} {path}: {}", said.stdout))
    }

    /// The names of what the store can do.
    ///
    /// # Errors
    /// When the host does not say.
    pub fn abilities(&self) -> Outcome<Vec<String>> {
        let features = self.api("GET", "object-features", None)?;
        let names = features["abilities"].as_array().into_iter().flatten();
        Ok(names.filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect())
    }
}

/// The keys of a listing in JSON.
///
/// # Errors
/// When it is none.
pub fn keys(answer: &Value) -> Outcome<Vec<String>> {
    let list = answer.as_array().or_else(|| answer["objects"].as_array());
    let list = list.ok_or_else(|| Failure::new(format!("no listing: {answer}")))?;
    Ok(list.iter().filter_map(|one| one["key"].as_str().map(ToOwned::to_owned)).collect())
}

/// Writes a file of so many bytes that nobody can guess, and that are the same for the same seed.
///
/// # Errors
/// When it cannot be written.
pub fn scattered(file: &Path, size: u64, seed: u64) -> Outcome {
    const CHUNK: usize = 1 << 20;
    let mut random = Random::new(seed);
    let mut output = File::create(file).context(file.display())?;
    let (mut chunk, mut left) = (Vec::with_capacity(CHUNK), size);
    while left > 0 {
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        chunk.clear();
        while chunk.len() < len {
            chunk.extend_from_slice(&random.number().to_le_bytes());
        }
        output.write_all(&chunk[..len]).context(file.display())?;
        left -= len as u64;
    }
    Ok(())
}

/// The SHA-256 of a file, in hexadecimal digits, as sha256sum tells it.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(file: &Path) -> Outcome<String> {
    let said = Program::new("sha256sum").arg(file).run()?;
    Ok(said.stdout.split_whitespace().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::{keys, scattered, sha256};

    #[test]
    fn keys_are_read_from_both_shapes() {
        let list = json!([{ "key": "a", "size": 1 }, { "key": "b/c" }]);
        assert_eq!(keys(&list).unwrap(), ["a", "b/c"]);
        assert_eq!(keys(&json!({ "objects": list, "prefixes": [] })).unwrap(), ["a", "b/c"]);
        assert!(keys(&json!({})).is_err());
    }

    #[test]
    fn a_seed_gives_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let [one, same, other] = ["one", "same", "other"].map(|name| directory.path().join(name));
        for (file, seed) in [(&one, 1), (&same, 1), (&other, 2)] {
            scattered(file, (1 << 20) + 5, seed).unwrap();
            assert_eq!(fs::metadata(file).unwrap().len(), (1 << 20) + 5);
        }
        assert_eq!(sha256(&one).unwrap(), sha256(&same).unwrap());
        assert_ne!(sha256(&one).unwrap(), sha256(&other).unwrap());
        assert_eq!(sha256(&one).unwrap().len(), 64);
    }
}
