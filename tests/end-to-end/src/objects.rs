// SPDX-License-Identifier: Apache-2.0
//! Object stores on this machine, as `tests/services/object` makes them, and the ways to use them: by backends of a host, by
//! its command line ([`Front`]), and by a client that has nothing but a signed URL ([`Signed`]).

mod front;
mod signed;

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

pub use front::{Front, keys, scattered, sha256};
pub use signed::{Fetched, Signed};

use crate::{
    artifacts::Artifacts,
    failure::{Context, Failure, Outcome, ensure},
    faults::Faults,
    host::{Host, install},
    program::{Program, until},
    workspace::root,
};

/// The name of the driver.
pub const DRIVER: &str = "object-storage";

/// The key of `addresses` with the account that Keystone leads to.
const KEYSTONE_STORAGE: &str = "keystone_storage";

const PATIENCE: Duration = Duration::from_secs(30);

/// A store of a kind that is at a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Store {
    /// S3 at the gateway of a Ceph cluster.
    Radosgw,
    /// S3 as moto plays it.
    Moto,
    /// S3 of Swift.
    SwiftS3,
    /// Azure Blob as Azurite plays it.
    Azurite,
    /// Google Cloud Storage as our fake plays it.
    Gcs,
    /// Swift, by auth v1.
    Swift,
    /// Swift, by Keystone.
    Keystone,
    /// Swift at the gateway of a Ceph cluster.
    RadosgwSwift,
}

/// All of them.
pub const STORES: [Store; 8] = [
    Store::Radosgw,
    Store::Moto,
    Store::SwiftS3,
    Store::Azurite,
    Store::Gcs,
    Store::Swift,
    Store::Keystone,
    Store::RadosgwSwift,
];

impl Store {
    /// What backends of it are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Radosgw => "radosgw",
            Self::Moto => "moto",
            Self::SwiftS3 => "swift-s3",
            Self::Azurite => "azurite",
            Self::Gcs => "gcs",
            Self::Swift => "swift",
            Self::Keystone => "keystone",
            Self::RadosgwSwift => "radosgw-swift",
        }
    }

    /// The kind of store that it is to the driver.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Radosgw | Self::Moto | Self::SwiftS3 => "s3",
            Self::Azurite => "azure",
            Self::Gcs => "gcs",
            Self::Swift | Self::Keystone | Self::RadosgwSwift => "swift",
        }
    }

    /// What the script calls its server.
    fn server(self) -> &'static str {
        match self {
            Self::Radosgw | Self::RadosgwSwift => "radosgw",
            Self::Swift | Self::SwiftS3 => "swift",
            other => other.name(),
        }
    }

    /// The key of `addresses` with its URL.
    fn key(self) -> &'static str {
        match self {
            Self::Radosgw => "radosgw_s3",
            Self::Moto => "moto",
            Self::SwiftS3 => "swift_s3",
            Self::Azurite => "azurite",
            Self::Gcs => "gcs",
            Self::Swift => "swift_auth",
            Self::Keystone => "keystone_url",
            Self::RadosgwSwift => "radosgw_swift_auth",
        }
    }

    /// What a store of its kind can do, and this server cannot.
    pub fn lacks(self) -> &'static [&'static str] {
        match self {
            Self::SwiftS3 => &["tags", "policy", "expire-rules"],
            Self::RadosgwSwift => &["versioning"],
            _ => &[],
        }
    }

    /// Whether the server checks who asks at all.
    pub fn checks_signatures(self) -> bool {
        self != Self::Moto
    }
}

/// Those of these stores that `NOVASTOR_OBJECT_STORES` names, with spaces between; all of them if it is not set. For looking at
/// one store at a time: a scene that was played so has not shown what it is to show.
///
/// # Errors
/// When it names none of them.
pub fn chosen(stores: &[Store]) -> Outcome<Vec<Store>> {
    let Ok(names) = std::env::var("NOVASTOR_OBJECT_STORES") else { return Ok(stores.to_vec()) };
    let is_named = |store: &Store| names.split_whitespace().any(|name| name == store.name());
    let chosen: Vec<_> = stores.iter().copied().filter(is_named).collect();
    ensure(!chosen.is_empty(), || {
        format!("NOVASTOR_OBJECT_STORES={names:?} names none of {stores:?}")
    })?;
    Ok(chosen)
}

/// A backend of a host: a store, and how it is reached.
#[derive(Clone, Copy)]
pub struct Backend<'o> {
    /// Its name.
    pub name: &'o str,
    /// The store.
    pub store: Store,
    /// What is between the driver and the store.
    pub through: Option<&'o Faults>,
    /// Options that are put in the place of those that lead to the store, or added: a key and what TOML has for its value,
    /// which if it is empty takes the option away.
    pub changes: &'o [(&'o str, &'o str)],
}

impl<'o> Backend<'o> {
    /// A store, reached without anything between, and called as it is.
    pub fn of(store: Store) -> Self {
        Self { name: store.name(), store, through: None, changes: &[] }
    }

    /// The same with something between.
    pub fn through(mut self, faults: &'o Faults) -> Self {
        self.through = Some(faults);
        self
    }

    /// The same by another name.
    pub fn named(mut self, name: &'o str) -> Self {
        self.name = name;
        self
    }

    /// The same with other options.
    pub fn with(mut self, changes: &'o [(&'o str, &'o str)]) -> Self {
        self.changes = changes;
        self
    }
}

/// The value of an option.
enum Setting {
    Text(String),
    Secret(String),
    Is(bool),
}

/// The servers, which are removed when this is dropped if they were made by it.
pub struct Objects {
    /// Where the script has them.
    servers: PathBuf,
    /// What hosts read as secrets.
    room: PathBuf,
    /// Whether they are removed.
    own: bool,
}

fn script(verb: &str, directory: &Path) -> Program {
    let script = Program::new(root().join("tests/services/object"));
    let script = script.arg(verb).arg(directory).limit_secs(300);
    // Built with this program, so that no server waits for cargo, and none is slow for want of optimisation.
    match std::env::current_exe().map(|program| program.with_file_name("gcs-fake")) {
        Ok(fake) if fake.is_file() => script.env("NOVASTOR_GCS_FAKE", fake),
        _ => script,
    }
}

fn quoted(text: &str) -> String {
    // A text is written in TOML as in JSON.
    Value::from(text).to_string()
}

impl Objects {
    /// Makes the servers of these stores in this directory, which is made, too; or uses those that `NOVASTOR_OBJECT` names, as
    /// `tests/services/object with` sets it.
    ///
    /// # Errors
    /// When their packages are missing, or a server does not come up.
    pub fn start(directory: &Path, stores: &[Store]) -> Outcome<Self> {
        let mut servers: Vec<_> = stores.iter().map(|store| store.server()).collect();
        servers.sort_unstable();
        servers.dedup();
        let room = directory.join("secrets");
        if let Some(others) = std::env::var_os("NOVASTOR_OBJECT") {
            fs::create_dir_all(&room).context(room.display())?;
            return Ok(Self { servers: others.into(), room, own: false });
        }
        let chosen = servers.join(" ");
        script("installed", directory)
            .env("NOVASTOR_OBJECT_SERVERS", &chosen)
            .run()
            .context(format!("one of {chosen} is missing (tests/services/object install)"))?;
        fs::create_dir_all(directory).context(directory.display())?;
        // From now on something may be there to be removed.
        let objects = Self { servers: directory.to_owned(), room, own: true };
        script("start", directory).args(&servers).run()?;
        fs::create_dir(&objects.room).context("secrets")?;
        if servers.contains(&"radosgw") {
            objects.spare().context("the cluster's pool of objects")?;
        }
        Ok(objects)
    }

    /// One copy of what is in buckets is enough here, and what is deleted goes soon: the cluster's disks are small.
    fn spare(&self) -> Outcome {
        const POOL: &str = "default.rgw.buckets.data";
        let conf = self.file("ceph/ceph.conf");
        let ceph = |words: &[&str]| Program::new("ceph").arg("-c").arg(&conf).args(words).run();
        ceph(&["config", "set", "global", "mon_allow_pool_size_one", "true"])?;
        for (key, value) in [("rgw_gc_obj_min_wait", "5"), ("rgw_gc_processor_period", "10")] {
            ceph(&["config", "set", "client.rgw.a", key, value])?;
        }
        ceph(&["osd", "pool", "create", POOL, "8"])?;
        ceph(&["osd", "pool", "application", "enable", POOL, "rgw"])?;
        ceph(&["osd", "pool", "set", POOL, "size", "1", "--yes-i-really-mean-it"]).map(drop)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.servers.join(name)
    }

    /// What is at a key of `addresses`.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn address(&self, key: &str) -> Outcome<String> {
        let path = self.file("addresses");
        let text = fs::read_to_string(&path).context(path.display())?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let found = found.map(ToOwned::to_owned);
        found.ok_or_else(|| Failure::new(format!("{} has no {key}", path.display())))
    }

    /// A store's URL.
    ///
    /// # Errors
    /// When it is not known.
    pub fn url(&self, store: Store) -> Outcome<String> {
        self.address(store.key())
    }

    /// Where a store listens.
    ///
    /// # Errors
    /// When it is not known.
    pub fn place(&self, store: Store) -> Outcome<SocketAddr> {
        place_of(&self.url(store)?)
    }

    /// Something that misbehaves on request, before a store.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn faults(&self, store: Store) -> Outcome<Faults> {
        let place = match store {
            // Who asks is told by another server than the store's.
            Store::Keystone => place_of(&self.address(KEYSTONE_STORAGE)?)?,
            store => self.place(store)?,
        };
        Faults::before(place)
    }

    /// A file that only its owner reads, as a host wants it of a secret; it gives what a configuration has for it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn secret(&self, name: &str, text: &str) -> Outcome<String> {
        let path = self.room.join(name);
        fs::write(&path, text).context(path.display())?;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).context(path.display())?;
        Ok(format!("{{ file = {} }}", quoted(&path.display().to_string())))
    }

    /// The options that lead to a store, without what a backend changes of them.
    fn options(&self, backend: &Backend<'_>) -> Outcome<Vec<(&'static str, Setting)>> {
        let store = backend.store;
        let at = |key: &str| self.address(key);
        let text = |key: &str| at(key).map(Setting::Text);
        let secret = |key: &str| at(key).map(Setting::Secret);
        let own = self.url(store)?;
        let through = |url: String| backend.through.map(|faults| faults.url(&url)).unwrap_or(url);
        let mut options = vec![("kind", Setting::Text(store.kind().to_owned()))];
        if store.kind() == "swift" {
            let auth = if store == Store::Keystone { own } else { through(own) };
            options.push(("auth_url", Setting::Text(auth)));
            if store == Store::Keystone && backend.through.is_some() {
                options.push(("endpoint", Setting::Text(through(at(KEYSTONE_STORAGE)?))));
            }
            // Swift signs with a key of the account, which the driver sets where it may.
            options.push(("temp_url_key", Setting::Secret("novastor-temp-url".to_owned())));
        } else {
            options.push(("endpoint", Setting::Text(through(own))));
        }
        options.extend(match store {
            Store::Radosgw | Store::Moto | Store::SwiftS3 => {
                let (key, secret_key) = match store {
                    Store::Radosgw => ("radosgw_access_key", "radosgw_secret_key"),
                    Store::Moto => ("moto_access_key", "moto_secret_key"),
                    _ => ("swift_user", "swift_key"),
                };
                vec![
                    ("region", Setting::Text("us-east-1".to_owned())),
                    ("access_key", secret(key)?),
                    ("secret_key", secret(secret_key)?),
                ]
            }
            Store::Azurite => vec![
                ("emulator", Setting::Is(true)),
                ("account", text("azurite_account")?),
                ("account_key", secret("azurite_key")?),
            ],
            // Who asks is told by the server itself, whatever is between: tokens are for its own address.
            Store::Gcs => {
                vec![
                    ("service_account", text("gcs_service_account")?),
                    ("project", text("gcs_project")?),
                ]
            }
            Store::Swift => vec![
                ("auth", Setting::Text("v1".to_owned())),
                ("user", text("swift_user")?),
                ("password", secret("swift_key")?),
            ],
            Store::RadosgwSwift => vec![
                ("auth", Setting::Text("v1".to_owned())),
                ("user", text("radosgw_swift_user")?),
                ("password", secret("radosgw_swift_key")?),
            ],
            Store::Keystone => vec![
                ("auth", Setting::Text("v3".to_owned())),
                ("user", text("keystone_user")?),
                ("password", secret("keystone_password")?),
                ("project", text("keystone_project")?),
                ("user_domain", text("keystone_domain")?),
                ("project_domain", text("keystone_domain")?),
                ("region", text("keystone_region")?),
            ],
        });
        Ok(options)
    }

    /// The options that lead to a store, with their secrets: for who is given them without a host.
    ///
    /// # Errors
    /// When an address is not known.
    pub fn plain_options(&self, store: Store) -> Outcome<Value> {
        let options = self.options(&Backend::of(store))?.into_iter().map(|(key, setting)| {
            let value = match setting {
                Setting::Text(text) | Setting::Secret(text) => Value::from(text),
                Setting::Is(is) => Value::from(is),
            };
            (key.to_owned(), value)
        });
        Ok(Value::Object(options.collect()))
    }

    /// The section of a backend.
    ///
    /// # Errors
    /// When an address is not known, or a secret cannot be written.
    pub fn section(&self, backend: &Backend<'_>) -> Outcome<String> {
        let changed = |key: &str| backend.changes.iter().any(|(changed, _)| *changed == key);
        let mut text = format!("\n[backends.{}]\ndriver = \"{DRIVER}\"\n", backend.name);
        for (key, setting) in self.options(backend)?.into_iter().filter(|(key, _)| !changed(key)) {
            let value = match setting {
                Setting::Text(text) => quoted(&text),
                Setting::Secret(text) => {
                    // Several hosts may have backends of the same name.
                    let name = format!("{}-{}-{key}", backend.store.name(), backend.name);
                    self.secret(&name, &text)?
                }
                Setting::Is(is) => is.to_string(),
            };
            text += &format!("{key} = {value}\n");
        }
        let changes = backend.changes.iter().filter(|(_, value)| !value.is_empty());
        changes.for_each(|(key, value)| text += &format!("{key} = {value}\n"));
        Ok(text + "\n")
    }

    /// A host with these further backends and variables of its environment; none of them is opened by this.
    ///
    /// # Errors
    /// When it does not start.
    pub fn closed_host(
        &self,
        artifacts: &Artifacts,
        backends: &[Backend<'_>],
        environment: Vec<(&'static str, String)>,
    ) -> Outcome<Host> {
        let sections: Outcome<String> = backends.iter().map(|one| self.section(one)).collect();
        let host = Host::start_in(artifacts, "", &sections?, environment)?;
        install(&artifacts.object_storage()?, &host.plugins())?;
        until(PATIENCE, || {
            let drivers = host.cli().drivers()?;
            let loaded = drivers.iter().any(|one| one.name == DRIVER && one.state == "loaded");
            ensure(loaded, || format!("the driver is not loaded: {drivers:?}"))
        })?;
        Ok(host)
    }

    /// A host with these further backends.
    ///
    /// # Errors
    /// When it does not start, or a backend does not open.
    pub fn host(&self, artifacts: &Artifacts, backends: &[Backend<'_>]) -> Outcome<Host> {
        let host = self.closed_host(artifacts, backends, Vec::new())?;
        for backend in backends {
            open(&host, backend.name)?;
        }
        Ok(host)
    }

    /// Signals a daemon of the servers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, daemon: &str, signal: &str) -> Outcome {
        script("daemon", &self.servers).args([daemon, signal]).run().map(drop)
    }

    /// Has Swift remove what has expired, from its listings as well.
    ///
    /// # Errors
    /// When it does not.
    pub fn expire(&self) -> Outcome {
        script("expire", &self.servers).run().map(drop)
    }

    /// Where secrets are.
    pub fn secrets(&self) -> &Path {
        &self.room
    }
}

/// Waits until a backend of a host is open.
///
/// # Errors
/// When it does not open.
pub fn open(host: &Host, backend: &str) -> Outcome {
    until(PATIENCE, || host.cli().ask().args(["backend", "open", backend]).run()).map(drop)
}

/// Where a URL leads.
fn place_of(url: &str) -> Outcome<SocketAddr> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let place = rest.split('/').next().unwrap_or_default();
    place.replace("localhost", "127.0.0.1").parse().context(url)
}

impl Drop for Objects {
    fn drop(&mut self) {
        if !self.own || !self.file("addresses").exists() {
            return;
        }
        // A drop cannot fail, but what it leaves behind must be seen.
        if let Err(failure) = script("remove", &self.servers).run() {
            eprintln!("cleaning up: {failure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Backend, Objects, Store, place_of};

    fn objects() -> (tempfile::TempDir, Objects) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("secrets")).unwrap();
        let (servers, room) = (directory.path().to_owned(), directory.path().join("secrets"));
        let objects = Objects { servers, room, own: false };
        (directory, objects)
    }

    #[test]
    fn a_section_leads_to_its_store_and_can_be_changed() {
        let (directory, objects) = objects();
        let addresses = "moto=http://127.0.0.1:9\nmoto_access_key=a\nmoto_secret_key=b\n";
        fs::write(directory.path().join("addresses"), addresses).unwrap();
        let changes = [("region", "\"eu\""), ("secret_key", ""), ("style", "\"path\"")];
        let backend = Backend::of(Store::Moto).named("one").with(&changes);
        let text = objects.section(&backend).unwrap();
        let lines: Vec<_> = text.trim().lines().collect();
        assert_eq!(
            lines[..4],
            [
                "[backends.one]",
                "driver = \"object-storage\"",
                "kind = \"s3\"",
                "endpoint = \"http://127.0.0.1:9\"",
            ]
        );
        assert!(lines[4].starts_with("access_key = { file = "), "{text}");
        assert_eq!(lines[5..], ["region = \"eu\"", "style = \"path\""]);
    }

    #[test]
    fn a_url_leads_somewhere() {
        for url in ["http://127.0.0.1:80/auth/v1.0", "https://localhost:80", "127.0.0.1:80"] {
            assert_eq!(place_of(url).unwrap().to_string(), "127.0.0.1:80");
        }
        assert!(place_of("http://nowhere").is_err());
    }
}
