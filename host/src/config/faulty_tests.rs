// SPDX-License-Identifier: Apache-2.0
//! Faulty configurations: each is refused with its place, its key, the cause and the remedy.

use super::*;

/// One faulty configuration and what its refusal must say. `place` is `file:line`, a variable or a flag.
struct Faulty {
    main: &'static str,
    variables: &'static [(&'static str, &'static str)],
    flags: &'static [&'static str],
    place: &'static str,
    key: &'static str,
    cause: &'static str,
    remedy: &'static str,
}

const fn file(
    main: &'static str,
    place: &'static str,
    key: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Faulty {
    Faulty { main, variables: &[], flags: &[], place, key, cause, remedy }
}

const fn variable(
    variables: &'static [(&'static str, &'static str)],
    key: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Faulty {
    Faulty { main: "", variables, flags: &[], place: variables[0].0, key, cause, remedy }
}

const fn flag(
    flags: &'static [&'static str],
    place: &'static str,
    key: &'static str,
    cause: &'static str,
    remedy: &'static str,
) -> Faulty {
    Faulty { main: "", variables: &[], flags, place, key, cause, remedy }
}

const NAS1: &str = "[backends.nas1]\ndriver = \"d\"\n";

macro_rules! nas1 {
    ($rest:literal) => {
        concat!("[backends.nas1]\ndriver = \"d\"\n", $rest)
    };
}

const SETTINGS: &[Faulty] = &[
    file("[plugin]\ndir = \"/x\"", "host.toml:1", "plugin", "no such key", "`plugins`"),
    file("colour = 1", "host.toml:1", "colour", "no such key", "use one of: active, api"),
    file("max_connections = 1", "host.toml:1", "max_connections", "no such", "nbd.max_connections"),
    file("\"nbd.socket\" = 1", "host.toml:1", "\"nbd.socket\"", "no such key", "use one of"),
    file("[nbd]\n\nsokcet = \"/x\"", "host.toml:3", "nbd.sokcet", "no such key", "`socket`"),
    file("[nbd]\nfilter = \"x\"", "host.toml:2", "nbd.filter", "no such key", "`log.filter`"),
    file("[log]\nzzzzzz = 1", "host.toml:2", "log.zzzzzz", "no such key", "filter, format"),
    file("nbd = 3", "host.toml:1", "nbd", "must be a section, it is an integer", "[nbd]"),
    file("active = 5", "host.toml:1", "active", "not of type text: it is an integer", "quotes"),
    file(
        "[nbd]\nmax_connections = \"10\"",
        "host.toml:2",
        "nbd.max_connections",
        "it is text",
        "without quotes",
    ),
    file(
        "[nbd]\nmax_in_flight = 0",
        "host.toml:2",
        "nbd.max_in_flight",
        "0 is not allowed",
        "from 1 to 65536",
    ),
    file(
        "[nbd]\nmax_in_flight = 99999999999999999999",
        "host.toml:2",
        "nbd.max_in_flight",
        "too large",
        "smaller",
    ),
    file("[nbd]\nsocket = \"run/x\"", "host.toml:2", "nbd.socket", "not absolute", "from the root"),
    file("[api]\nmode = 0o060", "host.toml:2", "api.mode", "not the mode of a socket", "0o660"),
    file("[api]\nmode = 660", "host.toml:2", "api.mode", "not the mode of a socket", "0o660"),
    file("[api]\nmode = 0o666", "host.toml:2", "api.mode", "every user", "group"),
    file("[nbd]\nmode = 0o666", "host.toml:2", "nbd.mode", "gives the exports to every", "group"),
    file("[nbd]\nlisten = \"x\"", "host.toml:2", "nbd.listen", "it is text", "a list of texts"),
    file("[nbd]\nlisten = [\"::1\"]", "host.toml:2", "nbd.listen", "\"::1\"", "\"[::1]:10809\""),
    file("[nbd]\nlisten = [\"a:1\"]", "host.toml:2", "nbd.listen", "\"a:1\"", "names are not"),
    file("[nbd]\nlisten = [\"[::]:1\"]", "host.toml:2", "nbd.listen", "certificate", "nbd.tls_key"),
    file(
        "[nbd]\ntls = \"offer\"\nlisten = [\"[::]:1\"]",
        "host.toml:3",
        "nbd.listen",
        "certificate",
        "nbd.tls_certificate",
    ),
    file("[nbd]\ntls = \"on\"", "host.toml:2", "nbd.tls", "none of the choices", "\"require\""),
    file("[nbd]\ntls_key = \"/k\"", "host.toml:2", "nbd.tls_key", "no cert", "tls_certificate"),
    file(
        "[nbd]\ntls_certificate = \"/c\"",
        "host.toml:2",
        "nbd.tls_certificate",
        "no key",
        "nbd.tls_key",
    ),
    file("[nbd]\ntls_client_ca = \"/a\"", "host.toml:2", "nbd.tls_client_ca", "in TLS", "tls_key"),
    file(
        "[nbd]\ntls_clients = \"offer\"",
        "host.toml:2",
        "nbd.tls_clients",
        "prove nothing",
        "nbd.tls_client_ca",
    ),
    file(
        "[log]\nformat = \"jsno\"",
        "host.toml:2",
        "log.format",
        "\"jsno\" is none",
        "write \"json\"",
    ),
    file(
        "[log]\nfilter = \"info,a=loud\"",
        "host.toml:2",
        "log.filter",
        "not a log filter",
        "levels",
    ),
    file("[log]\nfilter = \"a[span]=info\"", "host.toml:2", "log.filter", "by span", "levels"),
    file(
        "[plugins]\nallow_sha256 = [\"abc\"]",
        "host.toml:2",
        "plugins.allow_sha256",
        "64 hex",
        "sha256sum",
    ),
    file(
        "[plugins]\nallow_sha256 = [1]",
        "host.toml:2",
        "plugins.allow_sha256",
        "list of other",
        "list of texts",
    ),
    file("[log]\nfilter = \"info\n", "host.toml:2", "", "not TOML", "quotes"),
    file("\na = \n[log]", "host.toml:2", "", "not TOML", "correct the line"),
    file(
        "[log]\nformat = \"text\"\nformat = \"json\"",
        "host.toml:3",
        "format",
        "twice",
        "merge the two",
    ),
    file(
        "[backends.a]\ndriver = \"x\"\n[backends.a]\ndriver = \"y\"",
        "host.toml:3",
        "backends.a",
        "twice",
        "merge the two",
    ),
    file(
        "[backends.A]\ndriver = \"x\"\n[backends.a]\ndriver = \"y\"",
        "host.toml:3",
        "backends.a",
        "same but for case",
        "rename",
    ),
    file(
        "[backends.\"a/b\"]\ndriver = \"x\"",
        "host.toml:1",
        "backends.\"a/b\"",
        "contains '/'",
        "A-Z a-z",
    ),
    file(
        "[backends]\nnas1 = \"x\"",
        "host.toml:2",
        "backends.nas1",
        "must be a section",
        "[backends.nas1]",
    ),
    file(
        "[backends.nas1]\npath = \"/x\"",
        "host.toml:1",
        "backends.nas1.driver",
        "no driver",
        "add `driver",
    ),
    file(
        "[backends.nas1]\ndrvier = \"x\"",
        "host.toml:1",
        "backends.nas1.driver",
        "no driver",
        "`drvier`",
    ),
    file(
        "[backends.nas1]\ndriver = 1",
        "host.toml:2",
        "backends.nas1.driver",
        "an integer",
        "quotes",
    ),
    file(
        nas1!("layers = [\"crypt\"]"),
        "host.toml:3",
        "backends.nas1.layers",
        "cannot put layers",
        "remove",
    ),
    file(
        "active = \"nas2\"\n[backends.nas1]\ndriver = \"d\"",
        "host.toml:1",
        "active",
        "no backend \"nas2\"",
        "\"nas1\"",
    ),
    file("active = \"disk\"", "host.toml:1", "active", "no backend", "[backends.disk]"),
    file("[secrets]\nx = \"hunter2\"", "host.toml:2", "secrets.x", "must be a table", "file ="),
    file(
        "[secrets]\nx = { flie = \"/a\" }",
        "host.toml:2",
        "secrets.x",
        "no key \"flie\"",
        "`file`",
    ),
    file("[secrets]\nx = {}", "host.toml:2", "secrets.x", "empty", "file ="),
    file("[secrets]\nx = { file = \"a\" }", "host.toml:2", "secrets.x", "not absolute", "file ="),
    file(
        "[secrets]\nx = { file = \"/a\", env = \"A\" }",
        "host.toml:2",
        "secrets.x",
        "two places",
        "keep one",
    ),
    file(
        "[secrets]\nx = { credential = \"../a\" }",
        "host.toml:2",
        "secrets.x",
        "begins with a dot",
        "A-Z",
    ),
    variable(
        &[("NOVASTOR__NBD__MAX_CONECTIONS", "1")],
        "nbd.max_conections",
        "no such",
        "`max_connections`",
    ),
    variable(&[("NOVASTOR__NDB__SOCKET", "/x")], "ndb", "no such", "`nbd`"),
    variable(
        &[("NOVASTOR__NBD__MAX_CONNECTIONS", "many")],
        "nbd.max_connections",
        "not of type",
        "number",
    ),
    variable(&[("NOVASTOR__NBD____SOCKET", "/x")], "", "names no key", "NOVASTOR__SECTION__KEY"),
    variable(&[("NOVASTOR__API__MODE", "9")], "api.mode", "not the mode", "0o660"),
    flag(&["log.formt=json"], "--set log.formt", "log.formt", "no such key", "`format`"),
    flag(&["log.format=xml"], "--set log.format", "log.format", "none of the choices", "\"text\""),
    flag(&["logformat"], "--set", "", "no `=`", "--set section.key=value"),
    flag(&["log..format=json"], "--set log..format", "", "not a key", "--set section.key=value"),
];

const OPTIONS: &[Faulty] = &[
    file(
        nas1!("paht = \"/x\""),
        "host.toml:3",
        "backends.nas1.paht",
        "no option \"paht\"",
        "`path`",
    ),
    file(
        nas1!("path = \"/\"\nzzzzzzzz = 1"),
        "host.toml:4",
        "backends.nas1.zzzzzzzz",
        "no option",
        "path, capacity",
    ),
    file(
        NAS1,
        "host.toml:1",
        "backends.nas1.path",
        "needs this option",
        "add `path = …` to [backends.nas1]",
    ),
    file(
        nas1!("path = \"x\""),
        "host.toml:3",
        "backends.nas1.path",
        "not absolute",
        "from the root",
    ),
    file(
        nas1!("path = 1"),
        "host.toml:3",
        "backends.nas1.path",
        "absolute path: it is an integer",
        "quotes",
    ),
    file(
        nas1!("path = \"/\"\ncapacity = \"1XB\""),
        "host.toml:4",
        "backends.nas1.capacity",
        "size in bytes",
        "64MiB",
    ),
    file(
        nas1!("path = \"/\"\ncapacity = -1"),
        "host.toml:4",
        "backends.nas1.capacity",
        "negative",
        "64MiB",
    ),
    file(
        nas1!("path = \"/\"\ntimeout_secs = 1.5"),
        "host.toml:4",
        "backends.nas1.timeout_secs",
        "fraction",
        "whole",
    ),
    file(
        nas1!("path = \"/\"\ndirect = \"yes\""),
        "host.toml:4",
        "backends.nas1.direct",
        "it is text",
        "true or false",
    ),
    file(
        nas1!("path = \"/\"\nformat = \"qcow\""),
        "host.toml:4",
        "backends.nas1.format",
        "none of",
        "\"qcow2\"",
    ),
    file(
        nas1!("path = \"/\"\nservers = \"a\""),
        "host.toml:4",
        "backends.nas1.servers",
        "it is text",
        "list",
    ),
    file(
        nas1!("path = \"/\"\ntls = true"),
        "host.toml:4",
        "backends.nas1.tls",
        "a boolean",
        "table",
    ),
    file(
        nas1!("path = \"/\"\npassword = 5"),
        "host.toml:4",
        "backends.nas1.password",
        "must be text",
        "secret =",
    ),
    file(
        nas1!("path = \"/\"\npassword = { env = \"NONE\" }"),
        "host.toml:4",
        "backends.nas1.password",
        "variable NONE is not set",
        "set NONE",
    ),
    file(
        nas1!("path = \"/\"\npassword = { file = \"/nonexistent/p\" }"),
        "host.toml:4",
        "backends.nas1.password",
        "/nonexistent/p cannot be read",
        "create the file",
    ),
    file(
        nas1!("path = \"/\"\npassword = { credential = \"p\" }"),
        "host.toml:4",
        "backends.nas1.password",
        "$CREDENTIALS_DIRECTORY is not set",
        "LoadCredential=p",
    ),
    file(
        nas1!("path = \"/\"\npassword = { secret = \"pw\" }\n[secrets]\npw1 = { env = \"A\" }"),
        "host.toml:4",
        "backends.nas1.password",
        "no secret \"pw\"",
        "\"pw1\"",
    ),
    file(
        nas1!("path = \"/\"\npassword = { secrte = \"pw\" }"),
        "host.toml:4",
        "backends.nas1.password",
        "no key \"secrte\"",
        "`secret`",
    ),
    Faulty {
        main: NAS1,
        variables: &[],
        flags: &["backends.nas1.path=/", "backends.nas1.password=hunter2"],
        place: "--set backends.nas1.password",
        key: "backends.nas1.password",
        cause: "every user of this machine sees flags",
        remedy: "file =",
    },
    Faulty {
        main: NAS1,
        variables: &[
            ("NOVASTOR__BACKENDS__NAS1__CAPACITY", "much"),
            ("NOVASTOR__BACKENDS__NAS1__PATH", "/"),
        ],
        flags: &[],
        place: "NOVASTOR__BACKENDS__NAS1__CAPACITY",
        key: "backends.nas1.capacity",
        cause: "size in bytes",
        remedy: "64MiB",
    },
];

fn assert_says(faulty: &Faulty, directory: &str, error: &Error) {
    let shown = text(error);
    let main = faulty.main;
    assert_eq!(error.kind(), ErrorKind::INVALID_ARGUMENT, "{main}: {shown}");
    let context =
        |name: &str| error.context().find(|(key, _)| *key == name).map(|(_, value)| value);
    let place = ["file", "variable", "flag"].into_iter().find_map(context).unwrap_or_default();
    if faulty.place.starts_with("host.toml") {
        assert_eq!(place, format!("{directory}/{}", faulty.place), "{main}: {shown}");
    } else {
        assert!(place.starts_with(faulty.place), "{main}: {shown}");
    }
    assert_eq!(context("key").unwrap_or_default(), faulty.key, "{main}: {shown}");
    assert!(error.message().contains(faulty.cause), "{main}: {shown}");
    assert!(error.remedy_text().contains(faulty.remedy), "{main}: {shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    for part in [place, faulty.key, error.message(), error.remedy_text()] {
        assert!(shown.contains(part), "{shown}");
    }
}

fn case(faulty: &Faulty) -> (Case, String) {
    let case = Case::new(faulty.main).variables(faulty.variables).set(faulty.flags);
    let directory = case.directory.path().to_str().unwrap().to_owned();
    (case, directory)
}

#[test]
fn faulty_settings_are_refused_with_place_key_cause_and_remedy() {
    for faulty in SETTINGS {
        let (case, directory) = case(faulty);
        let error = Settings::load(&case.sources).expect_err(faulty.main);
        assert_says(faulty, &directory, &error);
    }
}

#[test]
fn faulty_options_are_refused_with_place_key_cause_and_remedy() {
    for faulty in OPTIONS {
        let (case, directory) = case(faulty);
        case.load();
        assert_says(faulty, &directory, &case.options().expect_err(faulty.main));
    }
}

#[test]
fn a_file_that_is_missing_unreadable_or_a_drop_in_is_named() {
    let mut case = Case::new("").file("conf.d/10.toml", "[nbd]\nsocket = 1\n");
    let error = Settings::load(&case.sources).unwrap_err();
    assert!(text(&error).contains("conf.d/10.toml:2"), "{error:#}");
    fs::write(case.path("conf.d/10.toml"), b"x = \"\xff\"").unwrap();
    let error = Settings::load(&case.sources).unwrap_err();
    assert!(text(&error).contains("conf.d/10.toml") && text(&error).contains("UTF-8"), "{error:#}");
    fs::remove_file(case.path("conf.d/10.toml")).unwrap();
    case.sources.config = Some(case.path("none.toml"));
    let error = Settings::load(&case.sources).unwrap_err();
    assert!(text(&error).contains("none.toml") && text(&error).contains("--config"), "{error:#}");
    assert!(error.message().contains("does not exist"), "{error:#}");
}

#[test]
fn a_secret_in_the_clear_needs_a_private_file() {
    let case = Case::new(nas1!("path = \"/\"\npassword = \"hunter2\"\n"));
    case.options().unwrap();
    fs::set_permissions(case.path("host.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = case.options().unwrap_err();
    assert!(error.message().contains("in the clear"), "{error:#}");
    assert!(error.remedy_text().contains("chmod o-r") && !text(&error).contains("hunter2"));
    assert!(text(&error).contains("host.toml:4"));
}
