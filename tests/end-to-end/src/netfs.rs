// SPDX-License-Identifier: Apache-2.0
//! NFS and SMB servers on this machine, as `tests/services/netfs` makes them, and the ways to use them.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    artifacts::Artifacts,
    failure::{Context, Failure, Outcome, ensure},
    host::{Host, install},
    program::{Program, until},
    workspace::root,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Server {
    /// nfs-ganesha.
    Ganesha,
    /// Samba.
    Samba,
}

impl Server {
    /// What the script calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ganesha => "ganesha",
            Self::Samba => "smbd",
        }
    }
}

/// A protocol in one of its versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// NFSv3.
    Nfs3,
    /// NFSv4.0.
    Nfs40,
    /// NFSv4.1.
    Nfs41,
    /// NFSv4.2, and 4.1 where the server has no 4.2.
    Nfs42,
    /// SMB, the best version, signed.
    Smb,
    /// The same on a share that demands encryption.
    SmbEncrypted,
}

/// All of them.
pub const WAYS: [Way; 6] =
    [Way::Nfs3, Way::Nfs40, Way::Nfs41, Way::Nfs42, Way::Smb, Way::SmbEncrypted];

impl Way {
    /// What backends and volumes of it are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nfs3 => "nfs3",
            Self::Nfs40 => "nfs40",
            Self::Nfs41 => "nfs41",
            Self::Nfs42 => "nfs42",
            Self::Smb => "smb",
            Self::SmbEncrypted => "smb-encrypted",
        }
    }

    /// Whose protocol it is.
    pub fn server(self) -> Server {
        match self {
            Self::Smb | Self::SmbEncrypted => Server::Samba,
            _ => Server::Ganesha,
        }
    }

    /// The versions that the driver may use.
    fn versions(self) -> Vec<&'static str> {
        match self {
            Self::Nfs3 => vec!["3"],
            Self::Nfs40 => vec!["4.0"],
            Self::Nfs41 => vec!["4.1"],
            Self::Nfs42 => vec!["4.2", "4.1"],
            Self::Smb | Self::SmbEncrypted => vec!["3.1.1"],
        }
    }
}

/// The servers, which are removed when this is dropped.
pub struct Netfs {
    directory: PathBuf,
}

fn script(verb: &str, directory: &Path) -> Program {
    Program::new(root().join("tests/services/netfs")).arg(verb).arg(directory).limit_secs(60)
}

impl Netfs {
    /// Makes the servers in this directory, which is made, too.
    ///
    /// # Errors
    /// When their packages are missing, or a server does not come up.
    pub fn start(directory: &Path) -> Outcome<Self> {
        script("installed", directory)
            .run()
            .context("nfs-ganesha or Samba is missing (tests/services/netfs install)")?;
        fs::create_dir_all(directory).context(directory.display())?;
        // From now on something may be there to be removed.
        let servers = Self { directory: directory.to_owned() };
        script("start", directory).run()?;
        // What a host reads as a secret is readable for its owner alone.
        let password = servers.password_file();
        fs::write(&password, servers.address("password")?).context(password.display())?;
        let owner = Permissions::from_mode(0o600);
        fs::set_permissions(&password, owner).context(password.display())?;
        Ok(servers)
    }

    /// What is at a key of `addresses`.
    ///
    /// # Errors
    /// When there is no such key.
    pub fn address(&self, key: &str) -> Outcome<String> {
        let path = self.directory.join("addresses");
        let text = fs::read_to_string(&path).context(path.display())?;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let found = found.map(ToOwned::to_owned);
        found.ok_or_else(|| Failure::new(format!("{} has no {key}", path.display())))
    }

    /// The port at a key of `addresses`.
    ///
    /// # Errors
    /// When there is none.
    pub fn port(&self, key: &str) -> Outcome<u16> {
        self.address(key)?.parse().context(key)
    }

    /// The port at which a way's server listens.
    ///
    /// # Errors
    /// When it is not known.
    pub fn port_of(&self, way: Way) -> Outcome<u16> {
        match way.server() {
            Server::Ganesha => self.port("nfs_port"),
            Server::Samba => self.port("smb_port"),
        }
    }

    /// Where the files that volumes become by this way lie on the server.
    ///
    /// # Errors
    /// When it is not known.
    pub fn files(&self, way: Way) -> Outcome<PathBuf> {
        let key = match way {
            Way::Smb => "share_path",
            Way::SmbEncrypted => "share_encrypted_path",
            _ => "export",
        };
        self.address(key).map(PathBuf::from)
    }

    /// The options of a backend by this way.
    ///
    /// # Errors
    /// When an address is not known.
    pub fn options(&self, way: Way) -> Outcome<Value> {
        let (server, port) = (self.address("host")?, self.port_of(way)?);
        let versions = way.versions();
        match way {
            Way::Nfs3 => Ok(json!({
                "server": server, "port": port, "versions": versions,
                "share": self.address("export")?, "mount_port": self.port("mount_port")?,
            })),
            Way::Nfs40 | Way::Nfs41 | Way::Nfs42 => Ok(json!({
                "server": server, "port": port, "versions": versions, "share": "/export",
            })),
            Way::Smb | Way::SmbEncrypted => {
                let encrypted = way == Way::SmbEncrypted;
                let share = if encrypted { "share_encrypted" } else { "share" };
                Ok(json!({
                    "protocol": "smb",
                    "server": server, "port": port, "versions": versions,
                    "share": self.address(share)?, "require_encryption": encrypted,
                    "user": self.address("user")?, "domain": self.address("domain")?,
                    "password": self.address("password")?,
                }))
            }
        }
    }

    fn password_file(&self) -> PathBuf {
        self.directory.join("password")
    }

    /// The section of a configuration file with the secret that the sections of backends name.
    pub fn secrets(&self) -> String {
        format!("\n[secrets]\nnas = {{ file = \"{}\" }}\n", self.password_file().display())
    }

    /// The section of a backend by this way, with further options.
    ///
    /// # Errors
    /// When an address is not known.
    pub fn section(&self, backend: &str, way: Way, more: &str) -> Outcome<String> {
        let mut options = self.options(way)?;
        let options = options.as_object_mut().ok_or_else(|| Failure::new("options"))?;
        let mut text = format!("\n[backends.{backend}]\ndriver = \"netfs\"\n");
        if options.remove("password").is_some() {
            text += "password = { secret = \"nas\" }\n";
        }
        // Texts, numbers and lists are written in TOML as in JSON.
        options.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
        Ok(text + more + "\n")
    }

    /// A host with a further backend for each of these ways, called as they are, all with these options.
    ///
    /// # Errors
    /// When it does not start, or a backend does not open.
    pub fn host(&self, artifacts: &Artifacts, ways: &[Way], options: &str) -> Outcome<Host> {
        let mut more = self.secrets();
        for way in ways {
            more += &self.section(way.name(), *way, options)?;
        }
        let host = Host::start(artifacts, &more)?;
        install(&artifacts.netfs()?, &host.plugins())?;
        for way in ways {
            until(PATIENCE, || host.cli().ask().args(["backend", "open", way.name()]).run())?;
        }
        Ok(host)
    }

    /// Signals a server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, server: Server, signal: &str) -> Outcome {
        script("daemon", &self.directory).args([server.name(), signal]).run().map(drop)
    }

    /// Signals a server with all its processes: Samba has one for each client.
    ///
    /// # Errors
    /// When none runs.
    pub fn signal_all(&self, server: Server, signal: &str) -> Outcome {
        let processes = match server {
            Server::Ganesha => return self.signal(server, signal),
            Server::Samba => self.processes_of_samba()?,
        };
        ensure(!processes.is_empty(), || format!("{} does not run", server.name()))?;
        // One that ends by itself meanwhile needs no signal.
        let kill = Program::as_root("kill").arg(format!("-{signal}")).args(&processes);
        kill.codes(&[0, 1]).run()?;
        if signal != "KILL" {
            return Ok(());
        }
        // Whoever starts it again at once must not find it dying, and take it for one that runs.
        until(PATIENCE, || {
            ensure(self.processes_of_samba()?.is_empty(), || "Samba does not end".to_owned())
        })
    }

    /// The processes of this Samba, by their command lines, which name its configuration.
    fn processes_of_samba(&self) -> Outcome<Vec<String>> {
        let conf = self.smb_conf().display().to_string();
        let is_one = |command: &str| command.starts_with("smbd") && command.contains(&conf);
        let mut processes = Vec::new();
        for entry in fs::read_dir("/proc").context("processes")? {
            let path = entry.context("processes")?.path();
            // Of one that has just ended nothing can be read.
            let command = fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if let (true, Some(id)) = (is_one(&command), path.file_name()) {
                processes.push(id.to_string_lossy().into_owned());
            }
        }
        Ok(processes)
    }

    /// Samba's configuration.
    pub fn smb_conf(&self) -> PathBuf {
        self.directory.join("smb.conf")
    }

    /// Takes the right to write to what a way uses away, or gives it back, as the server's administrator does. The server
    /// heeds it soon.
    ///
    /// # Errors
    /// When the server is not what it was made to be, or does not take it.
    pub fn set_read_only(&self, way: Way, read_only: bool) -> Outcome {
        let (conf, section, writable, closed) = match way.server() {
            Server::Ganesha => {
                let section = "Pseudo = /export;".to_owned();
                (
                    self.directory.join("ganesha.conf"),
                    section,
                    "Access_Type = RW;",
                    "Access_Type = RO;",
                )
            }
            Server::Samba => {
                let share = if way == Way::SmbEncrypted { "[encrypted]" } else { "[plain]" };
                (self.smb_conf(), share.to_owned(), "read only = no", "read only = yes")
            }
        };
        let (old, new) = if read_only { (writable, closed) } else { (closed, writable) };
        let text = fs::read_to_string(&conf).context(conf.display())?;
        let at = text.find(&section).and_then(|start| Some(start + text[start..].find(old)?));
        let at =
            at.ok_or_else(|| Failure::new(format!("{}: no {old} in {section}", conf.display())))?;
        let changed = format!("{}{new}{}", &text[..at], &text[at + old.len()..]);
        fs::write(&conf, changed).context(conf.display())?;
        match way.server() {
            Server::Ganesha => self.signal(Server::Ganesha, "HUP"),
            Server::Samba => {
                self.smbcontrol(&["smbd", "reload-config"])?;
                // Who has the share already keeps what it was given.
                self.end_sessions(way)
            }
        }
    }

    /// Lets the servers serve another directory in place of what ways to them use, and starts them anew. What they served before
    /// stays where it is.
    ///
    /// # Errors
    /// When a server does not end or start, or is not what it was made to be.
    pub fn move_to(&self, room: &Path) -> Outcome {
        let servers = [Server::Ganesha, Server::Samba];
        servers.iter().try_for_each(|server| self.signal_all(*server, "TERM"))?;
        for (key, name, conf) in
            [("export", "export", "ganesha.conf"), ("share_path", "share", "smb.conf")]
        {
            let (old, new) = (self.address(key)?, room.join(name));
            fs::create_dir_all(&new).context(new.display())?;
            fs::set_permissions(&new, Permissions::from_mode(0o777)).context(new.display())?;
            let new = new.display().to_string();
            replace(&self.directory.join(conf), &old, &new)?;
            let addresses = self.directory.join("addresses");
            replace(&addresses, &format!("{key}={old}\n"), &format!("{key}={new}\n"))?;
        }
        servers.iter().try_for_each(|server| self.again(*server))
    }

    /// Ends what clients have on a share of Samba, as its administrator does; they may come again.
    ///
    /// # Errors
    /// When Samba does not take it.
    pub fn end_sessions(&self, way: Way) -> Outcome {
        let share = if way == Way::SmbEncrypted { "share_encrypted" } else { "share" };
        self.smbcontrol(&["smbd", "close-share", &self.address(share)?])
    }

    /// Tells Samba's processes something, as its administrator does.
    fn smbcontrol(&self, words: &[&str]) -> Outcome {
        let program = Program::as_root("smbcontrol").arg("-s").arg(self.smb_conf()).args(words);
        program.run().map(drop)
    }

    /// Starts a server that has ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn again(&self, server: Server) -> Outcome {
        // One that was killed may not be gone yet.
        until(PATIENCE, || {
            let asked = script("runs", &self.directory).arg(server.name()).codes(&[0, 1]);
            let runs = asked.run()?.code == 0;
            ensure(!runs, || format!("{} still runs", server.name()))
        })?;
        script("again", &self.directory).arg(server.name()).run().map(drop)
    }

    /// The directory of the servers.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

fn replace(file: &Path, old: &str, new: &str) -> Outcome {
    let text = fs::read_to_string(file).context(file.display())?;
    ensure(text.contains(old), || format!("{} has no {old}", file.display()))?;
    fs::write(file, text.replace(old, new)).context(file.display())
}

impl Drop for Netfs {
    fn drop(&mut self) {
        if !self.directory.join("addresses").exists() {
            return;
        }
        // A drop cannot fail, but what it leaves behind must be seen.
        if let Err(failure) = script("remove", &self.directory).run() {
            eprintln!("cleaning up: {failure}");
        }
    }
}
