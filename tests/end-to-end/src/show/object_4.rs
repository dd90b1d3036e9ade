// SPDX-License-Identifier: Apache-2.0
//! What is wrong with a store, or with how it is asked, is said with its cause and what to do about it, and nothing changes.

mod clock;

use std::{
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use super::Stage;
use crate::{
    failure::{Context, Failure, Outcome, ensure},
    host::Host,
    objects::{Backend, Front, Objects, Store, chosen, open},
    program::Program,
};

const STORES: [Store; 5] = [Store::SwiftS3, Store::Swift, Store::Azurite, Store::Gcs, Store::Moto];
const LONG: [Store; 3] = [Store::Radosgw, Store::RadosgwSwift, Store::Keystone];

/// How the command line ends when what was typed is wrong, a thing is not there, the store refuses rights or the identity, or
/// cannot be reached.
const INVALID: i32 = 2;
const NOT_FOUND: i32 = 3;
const DENIED: i32 = 8;
const UNAUTHENTICATED: i32 = 9;
const UNAVAILABLE: i32 = 10;

/// A bucket that is there, and one that is not.
const BUCKET: &str = "novastor-errors";
const NOWHERE: &str = "novastor-nowhere";

/// The driver's deadlines, and what a refusal may take: the backend is opened, and then asked.
const DEADLINES: [(&str, &str); 3] =
    [("connect_timeout_secs", "2"), ("request_timeout_secs", "4"), ("operation_timeout_secs", "6")];
const IN_TIME: Duration = Duration::from_secs(14);

/// Something that is wrong.
struct Case {
    name: String,
    store: Store,
    /// What makes the store's backend a wrong one.
    changes: Vec<(&'static str, String)>,
    words: Vec<&'static str>,
    codes: &'static [i32],
    /// What the text must say, in this order of importance: the cause, then the remedy. Of each, one of the words between bars.
    says: Vec<&'static str>,
    /// The clock of the host is wrong.
    late: bool,
}

impl Case {
    fn new(name: &str, store: Store, codes: &'static [i32], says: &[&'static str]) -> Self {
        Self {
            name: format!("{name}-{}", store.name()),
            store,
            changes: Vec::new(),
            words: vec!["object", "list", BUCKET],
            codes,
            says: says.to_vec(),
            late: false,
        }
    }

    fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.changes.push((key, value.into()));
        self
    }

    fn typing(mut self, words: &[&'static str]) -> Self {
        self.words = words.to_vec();
        self
    }

    fn late(mut self) -> Self {
        self.late = true;
        self
    }
}

pub(super) fn play(stage: &Stage) -> Outcome {
    let mut stores = STORES.to_vec();
    if stage.is_long() {
        stores.extend(LONG);
    }
    let stores = chosen(&stores)?;
    let objects = Objects::start(&stage.path("servers"), &stores)?;
    let sound: Vec<_> = stores.iter().map(|store| Backend::of(*store)).collect();
    let plain = objects.host(&stage.artifacts, &sound)?;
    let file = stage.path("content");
    fs::write(&file, "what is there").context(file.display())?;
    let front = |host: &Host, name: &str| Front::new(host.cli(), name, &stage.path("state"));
    for store in &stores {
        let front = front(&plain, store.name());
        front.run(&["bucket", "create", BUCKET]).context(store.name())?;
        front.put(&file, &format!("{BUCKET}/one"), &[]).context(store.name())?;
    }
    let seen = || -> Outcome<Vec<String>> {
        let look = |store: &Store| -> Outcome<String> {
            let front = front(&plain, store.name());
            let buckets = front.json(&["bucket", "list"])?;
            Ok(format!("{buckets} {:?}", front.keys(BUCKET, "")?))
        };
        stores.iter().map(look).collect()
    };
    let before = seen()?;
    stage.tell(format!("{} stores answer", stores.len()));

    let cases = cases(stage, &objects, &stores)?;
    let failed = tried(stage, &objects, &cases)?;
    ensure(failed.is_empty(), || {
        format!("{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"))
    })?;
    let after = seen()?;
    ensure(before == after, || format!("something changed: {before:?} became {after:?}"))?;
    stage.tell(format!("{} cases are told with cause and remedy; nothing changed", cases.len()));
    remedied(stage, &objects, &stores).context("with the authority's certificate")
}

/// Tries all cases on two hosts, of which one has a wrong clock, and gives what is wrong with them.
fn tried(stage: &Stage, objects: &Objects, cases: &[Case]) -> Outcome<Vec<String>> {
    let shifted = clock::shifted(stage)?;
    let mut failed = Vec::new();
    for late in [false, true] {
        let cases: Vec<_> = cases.iter().filter(|case| case.late == late).collect();
        let changes: Vec<Vec<(&str, &str)>> = cases
            .iter()
            .map(|case| {
                let own = case.changes.iter().map(|(key, value)| (*key, value.as_str()));
                DEADLINES.into_iter().chain(own).collect()
            })
            .collect();
        let backends: Vec<_> = cases
            .iter()
            .zip(&changes)
            .map(|(case, changes)| Backend::of(case.store).named(&case.name).with(changes))
            .collect();
        let environment =
            if late { vec![("LD_PRELOAD", shifted.display().to_string())] } else { Vec::new() };
        let host = objects.closed_host(&stage.artifacts, &backends, environment)?;
        // They wait more than they work.
        let said: Vec<_> = thread::scope(|scope| {
            let host = &host;
            let running: Vec<_> = cases
                .iter()
                .map(|case| {
                    let case: &Case = case;
                    scope.spawn(move || told(stage, host, case).context(&case.name))
                })
                .collect();
            let panicked = |_| Err(Failure::new("a case panicked"));
            running.into_iter().map(|one| one.join().unwrap_or_else(panicked)).collect()
        });
        for (case, said) in cases.iter().zip(said) {
            match said {
                Ok(text) => stage.tell(format!("{}: {}", case.name, text.replace('\n', " | "))),
                Err(failure) => failed.push(failure.to_string()),
            }
        }
    }
    Ok(failed)
}

/// What the host says of a case, which is what it has to say.
fn told(stage: &Stage, host: &Host, case: &Case) -> Outcome<String> {
    let since = Instant::now();
    let mut said = host.cli().ask().args(["backend", "open", &case.name]).codes(&[]).run()?;
    if said.code == 0 {
        let front = Front::new(host.cli(), &case.name, &stage.path("state"));
        said = front.attempt(&case.words)?;
    }
    let (took, text) = (since.elapsed(), said.stderr.trim().to_owned());
    ensure(case.codes.contains(&said.code), || {
        format!("ended with {}, not {:?}: {}{text}", said.code, case.codes, said.stdout)
    })?;
    let low = text.to_lowercase();
    let silent = |words: &&&str| !words.split('|').any(|word| low.contains(&word.to_lowercase()));
    let missing = case.says.iter().find(silent);
    ensure(missing.is_none(), || format!("{missing:?} is not in what is said: {text}"))?;
    ensure(took <= IN_TIME, || format!("it took {took:.1?}: {text}"))?;
    Ok(text)
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn cases(stage: &Stage, objects: &Objects, stores: &[Store]) -> Outcome<Vec<Case>> {
    let has = |store: &Store| stores.contains(store);
    let refused: &[i32] = &[UNAUTHENTICATED, DENIED];
    let wrong = objects.secret("wrong", "bm8gc3VjaCBrZXkgYW55d2hlcmUgYXQgYWxsIQ==")?;
    let mut cases = Vec::new();
    for store in [Store::SwiftS3, Store::Radosgw].into_iter().filter(has) {
        let case = |name, says: &[&'static str]| Case::new(name, store, refused, says);
        cases.push(case("wrong-key", &["signature", "secret_key"]).with("secret_key", &wrong));
        cases.push(
            case("no-such-key", &["access key|signature", "access_key|secret_key"])
                .with("access_key", &wrong),
        );
        cases.push(case("skewed-clock", &["clock", "time|ntp|chrony"]).late());
    }
    if has(&Store::SwiftS3) {
        let says = ["region", "us-east-1"];
        let codes: &[i32] = &[INVALID, UNAUTHENTICATED, DENIED];
        let case = Case::new("wrong-region", Store::SwiftS3, codes, &says);
        cases.push(case.with("region", quoted("eu-west-9")));
    }
    for store in [Store::Swift, Store::RadosgwSwift].into_iter().filter(has) {
        let case = |name, says: &[&'static str]| Case::new(name, store, refused, says);
        cases.push(case("wrong-key", &["refuse", "password"]).with("password", &wrong));
        cases.push(case("no-such-user", &["refuse", "user"]).with("user", quoted("test:nobody")));
    }
    if has(&Store::Keystone) {
        let case =
            |name, codes, says: &[&'static str]| Case::new(name, Store::Keystone, codes, says);
        cases.push(case("wrong-key", refused, &["refuse", "password"]).with("password", &wrong));
        let codes: &[i32] = &[INVALID, NOT_FOUND];
        let says = ["region", "RegionOne"];
        cases.push(case("wrong-region", codes, &says).with("region", quoted("RegionTwo")));
    }
    let case = Case::new("wrong-key", Store::Azurite, refused, &["signature|key", "account_key"]);
    cases.push(case.with("account_key", &wrong));
    let account = other_key(stage, objects)?;
    let says = ["key|signature|service account", "service_account|service account"];
    let case = Case::new("wrong-key", Store::Gcs, refused, &says);
    cases.push(case.with("service_account", quoted(&account)));

    for store in stores {
        let says = [NOWHERE, "bucket create"];
        cases.push(
            Case::new("missing-bucket", *store, &[NOT_FOUND], &says)
                .typing(&["object", "list", NOWHERE]),
        );
        if store.kind() != "swift" {
            // Swift takes any name.
            let says = ["3|three", "characters|letters|names"];
            let case = Case::new("two-letters", *store, &[INVALID], &says);
            cases.push(case.typing(&["bucket", "create", "ab"]));
        }
    }
    for (store, key) in
        [(Store::Azurite, "azurite_tls"), (Store::Moto, "moto_tls"), (Store::Gcs, "gcs_tls")]
    {
        let says = ["certificate", "ca_file"];
        let case = Case::new("untrusted", store, &[UNAVAILABLE, UNAUTHENTICATED, DENIED], &says);
        cases.push(encrypted(objects, case, key)?);
    }
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = format!("http://{}", nobody.context("an address of nobody")?);
    let case = Case::new(
        "nobody-there",
        Store::Moto,
        &[UNAVAILABLE],
        &["reach|refused|connect", "endpoint"],
    );
    cases.push(case.with("endpoint", quoted(&nobody)));
    cases.retain(|case| has(&case.store));
    Ok(cases)
}

/// A case by TLS.
fn encrypted(objects: &Objects, case: Case, key: &str) -> Outcome<Case> {
    let case = case.with("endpoint", quoted(&objects.address(key)?));
    if key == "gcs_tls" {
        let account = objects.address("gcs_service_account_tls")?;
        return Ok(case.with("service_account", quoted(&account)));
    }
    Ok(case)
}

/// The service account with a key that it does not have.
fn other_key(stage: &Stage, objects: &Objects) -> Outcome<String> {
    let key = stage.path("other.key");
    let size = "rsa_keygen_bits:2048";
    Program::new("openssl")
        .args(["genpkey", "-algorithm", "RSA", "-pkeyopt", size, "-out"])
        .arg(&key)
        .run()?;
    let key = fs::read_to_string(&key).context(key.display())?;
    let account = objects.address("gcs_service_account")?;
    let text = fs::read_to_string(&account).context(account)?;
    let mut json: serde_json::Value = serde_json::from_str(&text).context("service account")?;
    json["private_key"] = key.into();
    objects.secret("other-account.json", &json.to_string())?;
    Ok(objects.secrets().join("other-account.json").display().to_string())
}

/// What the remedy for a certificate that nobody trusts says helps.
fn remedied(stage: &Stage, objects: &Objects, stores: &[Store]) -> Outcome {
    let ca = quoted(&objects.address("ca")?);
    for (store, key) in
        [(Store::Azurite, "azurite_tls"), (Store::Moto, "moto_tls"), (Store::Gcs, "gcs_tls")]
    {
        if !stores.contains(&store) {
            continue;
        }
        let case =
            encrypted(objects, Case::new("trusted", store, &[], &[]), key)?.with("ca_file", &ca);
        let changes: Vec<_> =
            case.changes.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let backend = Backend::of(store).named(&case.name).with(&changes);
        let host = objects.closed_host(&stage.artifacts, &[backend], Vec::new())?;
        open(&host, &case.name)?;
        let front = Front::new(host.cli(), &case.name, &stage.path("state"));
        front.run(&["bucket", "list"]).context(&case.name)?;
    }
    stage.tell("with `ca_file`, as the remedy says, the untrusted ones are trusted");
    Ok(())
}
