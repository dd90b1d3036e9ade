// SPDX-License-Identifier: Apache-2.0
//! Where the contenders meet, and how each is asked.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    artifacts::Artifacts,
    cpu,
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    objects::{Backend, Front, Objects, Store, open, scattered, sha256},
    program::Program,
};
use novastor_bench::load::Sample;

use crate::{
    cases::{Ask, NOVASTOR, Sizes},
    fill,
    memory::{self, Peak},
};

const STORE: Store = Store::Radosgw;
/// The bucket of what goes up and comes down, and of what is listed.
const FILES: &str = "novastor-bench-files";
const MANY: &str = "novastor-bench-many";
/// What comes down.
const DOWN: &str = "down";
const LIMIT: Duration = Duration::from_secs(600);

/// The servers, the host, and the file.
pub struct Field {
    host: Host,
    front: Front,
    room: PathBuf,
    file: PathBuf,
    sum: String,
    sizes: Sizes,
    objects: Objects,
}

impl Field {
    /// Makes all of it.
    ///
    /// # Errors
    /// When something is missing, or does not start.
    pub fn start(files: &Path, servers: &Path, sizes: Sizes) -> Outcome<Self> {
        Program::new("rclone").arg("version").run().context(
            "rclone is missing (tests/services/object install, or apt-get install rclone)",
        )?;
        let objects = Objects::start(&servers.join("objects"), &[STORE])?;
        let artifacts = Artifacts::of_this_build()?;
        let host = objects.host(&artifacts, &[Backend::of(STORE)])?;
        let front = Front::new(host.cli(), STORE.name(), &files.join("state"));
        for bucket in [FILES, MANY] {
            front.run(&["bucket", "create", bucket])?;
        }
        let file = files.join("file");
        scattered(&file, sizes.file, 5)?;
        let (sum, room) = (sha256(&file)?, files.to_owned());
        Ok(Self { host, front, room, file, sum, sizes, objects })
    }

    /// Makes what a case begins with, and lets it begin with a new host: what the case before left in its memory is not this
    /// one's.
    ///
    /// # Errors
    /// When the store refuses.
    pub fn prepare(&mut self, ask: Ask) -> Outcome {
        self.begin(ask)?;
        self.host.stop()?;
        self.host.restart()?;
        open(&self.host, STORE.name())
    }

    fn begin(&self, ask: Ask) -> Outcome {
        match ask {
            Ask::Up => Ok(()),
            Ask::Down => {
                // Parts of a size that neither contender has: none reads where it is easiest for the server.
                let words = ["--part-size", "8MiB"];
                self.front.put(&self.file, &format!("{FILES}/{DOWN}"), &words).map(drop)
            }
            Ask::List => self.fill(),
        }
    }

    /// Fills the bucket, which for that time everybody may write to.
    fn fill(&self) -> Outcome {
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":"*","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::{MANY}/*"]}}]}}"#
        );
        let file = self.room.join("policy.json");
        fs::write(&file, policy).context(file.display())?;
        self.front.ask(&["bucket", "policy", "set", MANY]).arg(&file).run()?;
        fill::fill(self.objects.place(STORE)?, MANY, self.sizes.objects)?;
        self.front.run(&["bucket", "policy", "remove", MANY]).map(drop)
    }

    /// A contender's turn.
    ///
    /// # Errors
    /// When it fails, or what came of it is not right.
    pub fn run(&self, who: &'static str, ask: Ask, round: usize) -> Outcome<(Sample, Peak)> {
        let (back, log) = (self.room.join("back"), self.room.join("said"));
        for file in [&back, &log] {
            // Of the turn before; there may be none.
            let _ = fs::remove_file(file);
        }
        let key = format!("{who}-{round}");
        let program = if who == NOVASTOR {
            self.novastor(ask, &key, &back)
        } else {
            self.rclone(ask, &key, &back)?
        };
        let host = (who == NOVASTOR).then(|| self.host.id()).transpose()?;
        let cpu_before = cpu_of(host)?;
        if let Some(host) = host {
            memory::forget(host)?;
        }
        let since = Instant::now();
        let mut running = program.start(&log)?;
        let id = running.id();
        let watch = thread::spawn(move || memory::watch(id));
        let status = running.wait(LIMIT)?;
        let secs = since.elapsed().as_secs_f64();
        ensure(status.success(), || format!("it ended with {status}: {}", running.said()))?;
        let command = watch.join().map_err(|_| Failure::new("the watch panicked"))?;
        let host_peak = host.map(memory::peak).transpose()?.unwrap_or_default();
        let peak = Peak { both: command + host_peak, command, host: host_peak };
        let cpu_secs = cpu_of(host)? - cpu_before;
        self.check(who, ask, &key, &back, &log)?;
        let operations = match ask {
            Ask::List => self.sizes.objects as f64,
            _ => self.sizes.file as f64 / ask.block() as f64,
        };
        let (rate, cpu_us) = (operations / secs, cpu_secs * 1e6 / operations);
        Ok((Sample { rate, latency_us: None, cpu_us }, peak))
    }

    fn novastor(&self, ask: Ask, key: &str, back: &Path) -> Program {
        let part = format!("{}MiB", self.sizes.part >> 20);
        let parallel = self.sizes.parallel.to_string();
        let words = ["--part-size", &part, "--parallel", &parallel];
        match ask {
            Ask::Up => {
                let program = self.front.ask(&["object", "put"]).arg(&self.file);
                program.arg(format!("{FILES}/{key}")).args(words)
            }
            Ask::Down => {
                let from = format!("{FILES}/{DOWN}");
                self.front.ask(&["object", "get", &from]).arg(back).args(words)
            }
            Ask::List => self.front.ask(&["object", "list", MANY, "--output", "json"]),
        }
    }

    fn rclone(&self, ask: Ask, key: &str, back: &Path) -> Outcome<Program> {
        let address = |key: &str| self.objects.address(key);
        let part = format!("{}M", self.sizes.part >> 20);
        let parallel = self.sizes.parallel.to_string();
        let program = Program::new("rclone")
            .args(["--config", "", "--retries", "1", "--s3-no-check-bucket"])
            .args(["--s3-chunk-size", &part, "--s3-upload-concurrency", &parallel])
            .args(["--s3-upload-cutoff", "5M", "--s3-disable-checksum"])
            .args(["--multi-thread-cutoff", "16M", "--multi-thread-streams", &parallel])
            // What is meant for the world outside: rclone takes no authorities from the environment.
            .without_env("AWS_CA_BUNDLE")
            .env("NO_PROXY", "127.0.0.1")
            .env("RCLONE_CONFIG_BENCH_TYPE", "s3")
            .env("RCLONE_CONFIG_BENCH_PROVIDER", "Ceph")
            .env("RCLONE_CONFIG_BENCH_ENDPOINT", self.objects.url(STORE)?)
            .env("RCLONE_CONFIG_BENCH_ACCESS_KEY_ID", address("radosgw_access_key")?)
            .env("RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY", address("radosgw_secret_key")?);
        Ok(match ask {
            Ask::Up => {
                let to = format!("bench:{FILES}/{key}");
                program.arg("copyto").arg(&self.file).arg(to)
            }
            Ask::Down => program.arg("copyto").arg(format!("bench:{FILES}/{DOWN}")).arg(back),
            Ask::List => program
                .args(["lsf", "--files-only", "--fast-list", "-R"])
                .arg(format!("bench:{MANY}")),
        })
    }

    /// Whether what a turn did is right; what it made is removed.
    fn check(&self, who: &str, ask: Ask, key: &str, back: &Path, log: &Path) -> Outcome {
        match ask {
            Ask::Up => {
                let object = format!("{FILES}/{key}");
                self.front.get(&object, back, &[])?;
                let sum = sha256(back)?;
                ensure(sum == self.sum, || format!("{who} put other bytes up"))?;
                self.front.run(&["object", "delete", &object]).map(drop)
            }
            Ask::Down => {
                let sum = sha256(back)?;
                ensure(sum == self.sum, || format!("{who} brought other bytes down"))
            }
            Ask::List => {
                let text = fs::read_to_string(log).context(log.display())?;
                let objects = text.matches(fill::PREFIX).count() as u64;
                ensure(objects == self.sizes.objects, || format!("{who} listed {objects} objects"))
            }
        }
    }
}

/// CPU seconds of the commands that have ended, and of the host if it takes part.
fn cpu_of(host: Option<u32>) -> Outcome<f64> {
    let host = host.map(cpu::secs_of).transpose()?.unwrap_or_default();
    Ok(cpu::secs_of_children()? + host)
}
