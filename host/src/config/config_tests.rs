// SPDX-License-Identifier: Apache-2.0
use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use driver_api::{DriverInfo, Error, ErrorKind, OptionSpec, OptionType};
use serde_json::json;

use super::*;

/// A configuration on disk with an environment and flags.
struct Case {
    directory: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new(main: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("host.toml");
        fs::write(&path, main).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory, sources: Sources { config: Some(path), ..Sources::default() } }
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn variables(mut self, pairs: &[(&str, &str)]) -> Self {
        self.sources.variables = pairs.iter().copied().collect();
        self
    }

    fn set(mut self, flags: &[&str]) -> Self {
        self.sources.overrides = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self
    }

    fn load(&self) -> Loaded {
        Settings::load(&self.sources).unwrap()
    }

    fn options(&self) -> driver_api::Result<serde_json::Value> {
        check_options(&Settings::load(&self.sources)?, "nas1", &driver())
    }
}

fn driver() -> DriverInfo {
    DriverInfo::new("A driver with an option of each type.")
        .option(OptionSpec::new("path", OptionType::PATH, "The directory.").required())
        .option(OptionSpec::new("capacity", OptionType::SIZE, "Space.").default_json("\"1GiB\""))
        .option(OptionSpec::new("timeout_secs", OptionType::INTEGER, "Patience."))
        .option(OptionSpec::new("direct", OptionType::BOOLEAN, "O_DIRECT.").default_json("false"))
        .option(OptionSpec::new("ratio", OptionType::NUMBER, "A ratio."))
        .option(
            OptionSpec::new("format", OptionType::CHOICE, "The format.")
                .choices(&["raw", "qcow2"])
                .default_json("\"raw\""),
        )
        .option(OptionSpec::new("servers", OptionType::TEXTS, "Servers."))
        .option(OptionSpec::new("tls", OptionType::TABLE, "TLS."))
        .option(OptionSpec::new("user", OptionType::TEXT, "User."))
        .option(OptionSpec::new("password", OptionType::TEXT, "Password.").secret())
}

/// What an operator sees of an error.
fn text(error: &Error) -> String {
    format!("{error:#}")
}

#[test]
fn defaults_stand_without_any_configuration() {
    let loaded = Case::new("").load();
    let settings = &loaded.settings;
    assert_eq!(settings.active, None);
    assert_eq!(settings.plugins.dir, PathBuf::from("/usr/lib/novastor/plugins.d"));
    assert_eq!(settings.plugins.private_dir, PathBuf::from("/var/lib/novastor/plugins"));
    assert_eq!(settings.state.path, PathBuf::from("/var/lib/novastor/state.redb"));
    assert_eq!(settings.api.socket, PathBuf::from("/run/novastor/api.sock"));
    assert_eq!(settings.api.mode, 0o660);
    assert_eq!((settings.nbd.max_connections, settings.nbd.max_in_flight), (256, 128));
    assert!(settings.nbd.listen.is_empty() && settings.nbd.tls == NbdTls::Require);
    assert_eq!(settings.nbd.busy_poll, 50);
    assert_eq!((settings.log.filter.as_str(), settings.log.format), ("info", LogFormat::Text));
    assert!(settings.backends.is_empty() && settings.secrets.is_empty());
    assert_eq!(loaded.origin(&["nbd", "socket"]), Origin::Default);
}

#[test]
fn later_layers_win_key_by_key_and_each_key_knows_its_origin() {
    let case = Case::new(
        "active = \"nas1\"\nruntime_dir = \"/a\"\n[nbd]\nmax_connections = 1\nmax_in_flight = 1\n\
         [backends.nas1]\ndriver = \"one\"\npath = \"/1\"\n[backends.Nas2]\ndriver = \"two\"\n",
    )
    .file("conf.d/20.toml", "[nbd]\nmax_connections = 20\n[backends.nas1]\ndriver = \"three\"\n")
    .file("conf.d/10.toml", "[nbd]\nmax_connections = 10\nmax_in_flight = 10\n")
    .file("conf.d/.hidden.toml", "broken")
    .file("conf.d/README", "broken")
    .variables(&[
        ("NOVASTOR__NBD__MAX_IN_FLIGHT", "30"),
        ("NOVASTOR__API__MODE", "0600"),
        ("NOVASTOR__PLUGINS__ALLOW_SHA256", &"ab".repeat(32)),
        ("NOVASTOR__BACKENDS__NAS2__USER", "me"),
        ("NOVASTOR__LOG__FORMAT", "json"),
        ("NOVASTOR_OTHER", "x"),
        ("OTHER", "x"),
    ])
    .set(&["log.format=text", "log.filter=info,a=debug", "backends.\"b.c\".driver=four"]);
    let loaded = case.load();
    let settings = &loaded.settings;
    assert_eq!((settings.nbd.max_connections, settings.nbd.max_in_flight), (20, 30));
    assert_eq!(settings.nbd.socket, PathBuf::from("/a/nbd.sock"));
    assert_eq!(settings.api.mode, 0o600);
    assert_eq!(settings.plugins.allow_sha256, ["ab".repeat(32)]);
    assert_eq!(settings.log.format, LogFormat::Text);
    assert_eq!(settings.log.filter, "info,a=debug");
    assert_eq!(settings.backends["nas1"].driver, "three");
    assert_eq!(settings.backends["nas1"].options["path"], "/1");
    assert_eq!(settings.backends["Nas2"].options["user"], "me");
    assert_eq!(settings.backends["b.c"].driver, "four");
    assert_eq!(settings.active.as_deref(), Some("nas1"));

    let file = |name: &str, line| Origin::File { path: case.path(name), line };
    assert_eq!(loaded.origin(&["active"]), file("host.toml", 1));
    assert_eq!(loaded.origin(&["backends", "nas1", "path"]), file("host.toml", 8));
    assert_eq!(loaded.origin(&["backends", "nas1", "driver"]), file("conf.d/20.toml", 4));
    assert_eq!(loaded.origin(&["nbd", "max_connections"]), file("conf.d/20.toml", 2));
    assert_eq!(
        loaded.origin(&["nbd", "max_in_flight"]),
        Origin::Variable("NOVASTOR__NBD__MAX_IN_FLIGHT".into())
    );
    assert_eq!(loaded.origin(&["log", "format"]), Origin::Flag("log.format".into()));
    let names: Vec<_> = loaded.files.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["host.toml", "10.toml", "20.toml"]);
}

#[test]
fn options_reach_the_driver_checked_and_complete() {
    let case = Case::new(
        "[backends.nas1]\ndriver = \"d\"\npath = \"/srv\"\ncapacity = \"1.5KiB\"\nratio = 1\n\
         servers = [\"a\", \"b\"]\ntls = { ca = \"x\", list = [1, 2] }\npassword = { secret = \"p\" }\n\
         [secrets]\np = { env = \"PASSWORD\" }\n",
    )
    .variables(&[
        ("PASSWORD", "hunter2"),
        ("NOVASTOR__BACKENDS__NAS1__TIMEOUT_SECS", "7"),
        ("NOVASTOR__BACKENDS__NAS1__DIRECT", "true"),
    ])
    .set(&["backends.nas1.user=007"]);
    assert_eq!(
        case.options().unwrap(),
        json!({
            "path": "/srv", "capacity": 1536, "timeout_secs": 7, "direct": true, "ratio": 1,
            "format": "raw", "servers": ["a", "b"], "tls": {"ca": "x", "list": [1, 2]},
            "user": "007", "password": "hunter2",
        })
    );
    let shown = without_secrets(&case.options().unwrap(), &driver());
    assert_eq!(shown["path"], "/srv");
    assert_eq!(shown["password"], "(secret)");
    let least = Case::new("[backends.nas1]\ndriver = \"d\"\npath = \"/srv\"\n");
    let expected = json!({"path": "/srv", "capacity": 1 << 30, "direct": false, "format": "raw"});
    assert_eq!(least.options().unwrap(), expected);
    let listed = least.set(&["backends.nas1.servers=a, b", "backends.nas1.tls={ x = 1 }"]);
    assert_eq!(listed.options().unwrap()["servers"], json!(["a", "b"]));
    assert_eq!(listed.options().unwrap()["tls"], json!({"x": 1}));
    let error = check_options(&listed.load(), "nas", &driver()).unwrap_err();
    assert!(text(&error).contains("nas1"), "{error:#}");
}

#[test]
fn secrets_come_from_files_variables_and_credentials() {
    let case = Case::new("").file("secret", "from a file\n").file("credentials/c", "from systemd");
    let path = case.path("secret");
    let main = format!(
        "[secrets]\nf = {{ file = {path:?} }}\ne = {{ env = \"E\" }}\nc = {{ credential = \"c\" }}\n"
    );
    let credentials = case.path("credentials").to_str().unwrap().to_owned();
    let case = case
        .file("host.toml", &main)
        .variables(&[("E", "from a variable"), ("CREDENTIALS_DIRECTORY", &credentials)]);
    let settings = case.load().settings;
    assert_eq!(resolve_secret(&settings, "f").unwrap(), "from a file");
    assert_eq!(resolve_secret(&settings, "e").unwrap(), "from a variable");
    assert_eq!(resolve_secret(&settings, "c").unwrap(), "from systemd");
    let error = resolve_secret(&settings, "g").unwrap_err();
    assert!(text(&error).contains("[secrets] has no secret \"g\""), "{error:#}");
    for (mode, allowed) in [(0o640, true), (0o644, false), (0o602, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(resolve_secret(&settings, "f").is_ok(), allowed, "{mode:o}");
    }
    let option = |value: &str| {
        let main = format!("[backends.nas1]\ndriver = \"d\"\npath = \"/\"\npassword = {value}\n");
        Case::new(&main)
            .variables(&[("E", "e"), ("CREDENTIALS_DIRECTORY", &credentials)])
            .options()
            .map(|options| options["password"].clone())
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(option(&format!("{{ file = {path:?} }}")).unwrap(), "from a file");
    assert_eq!(option("{ env = \"E\" }").unwrap(), "e");
    assert_eq!(option("{ credential = \"c\" }").unwrap(), "from systemd");
    assert_eq!(option("\"plain\"").unwrap(), "plain");
}

#[test]
fn nothing_prints_a_secret() {
    let secret = "hunter2";
    let main = format!(
        "[backends.nas1]\ndriver = \"d\"\npath = \"/\"\npassword = \"{secret}\"\nother = \"{secret}\"\n"
    );
    let case = Case::new(&main).variables(&[("NOVASTOR__BACKENDS__NAS1__USER", secret)]);
    let mut shown = format!("{:?} {:?} {:?}", case.sources, case.load(), case.load().settings);
    shown += &text(&case.options().unwrap_err());
    for broken in [
        format!("[backends.nas1]\npassword = \"{secret}\n"),
        format!("[backends.nas1]\npassword = {secret}\n"),
        format!("[backends.nas1]\ndriver = \"d\"\npath = \"/\"\npassword = [\"{secret}\"]\n"),
        format!("[backends.nas1]\ndriver = \"d\"\npath = \"/\"\ntimeout_secs = \"{secret}\"\n"),
    ] {
        shown += &text(&Case::new(&broken).options().unwrap_err());
    }
    for flag in [format!("={secret}"), format!("a b={secret}"), secret.to_owned()] {
        shown += &text(&Settings::load(&Case::new("").set(&[&flag]).sources).unwrap_err());
    }
    assert!(!shown.contains(secret), "{shown}");
    assert!(shown.contains("password"));
}

#[test]
fn the_packaged_file_shows_every_key_with_its_default() {
    let packaged = include_str!("../../packaging/host.toml");
    let defaults = format!("{:?}", Case::new("").load().settings);
    assert_eq!(format!("{:?}", Case::new(packaged).load().settings), defaults);
    let set: Vec<&str> = packaged
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => rest,
            _ => line,
        })
        .collect();
    let case = Case::new(&set.join("\n"));
    let loaded = case.load();
    for key in describe_keys() {
        let path = match key.key.split('.').collect::<Vec<_>>()[..] {
            ["backends", _, key] => vec!["backends", "disk", key],
            ["secrets", _] => vec!["secrets", "nas1"],
            ref path => path.to_vec(),
        };
        let origin = loaded.origin(&path);
        let line = match &origin {
            Origin::File { line, .. } => set[line - 1],
            _ => panic!("the file does not show {}", key.key),
        };
        assert!(line.starts_with(path[path.len() - 1]), "{} has no line of its own", key.key);
        assert!(!key.help.is_empty());
    }
    let mut settings = loaded.settings;
    assert_eq!(settings.active.take().as_deref(), Some("disk"));
    assert_eq!(settings.backends.remove("disk").unwrap().driver, "local");
    assert_eq!(settings.secrets.len(), 3);
    settings.secrets.clear();
    let nbd = &mut settings.nbd;
    assert_eq!(nbd.mode.take(), Some(settings.api.mode));
    assert_eq!(nbd.tls_clients.take(), Some(NbdTlsClients::Require));
    for file in [&mut nbd.tls_certificate, &mut nbd.tls_key, &mut nbd.tls_client_ca] {
        assert!(file.take().is_some(), "an example");
    }
    assert_eq!(format!("{settings:?}"), defaults);
}

#[path = "faulty_tests.rs"]
mod faulty;
