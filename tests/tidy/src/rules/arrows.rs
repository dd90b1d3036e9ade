// SPDX-License-Identifier: Apache-2.0
//! Arrows between crates run one way: everything knows driver-api, nothing knows the host, the host knows no driver.

use std::error::Error;

use serde_json::Value;

use crate::Violation;

const RULE: &str = "one-way arrows";

/// A crate of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its directory, from the top of the repository.
    pub place: String,
    /// Whether it is built as a driver's shared library.
    pub is_driver: bool,
    /// What it uses of this repository.
    pub uses: Vec<Use>,
}

/// A crate of this repository that another one uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its directory, from the top of the repository.
    pub place: String,
    /// Whether only tests use it.
    pub only_tests: bool,
}

impl Package {
    /// The crates in an answer of `cargo metadata --no-deps`.
    ///
    /// # Errors
    /// When the answer lacks a field.
    pub fn all(metadata: &Value) -> Result<Vec<Self>, Box<dyn Error>> {
        let root = text(&metadata["workspace_root"])?;
        let place =
            |path: &str| path.strip_prefix(root).unwrap_or(path).trim_matches('/').to_owned();
        let mut packages = Vec::new();
        for package in list(&metadata["packages"])? {
            let manifest = text(&package["manifest_path"])?;
            let directory =
                manifest.strip_suffix("Cargo.toml").ok_or("a manifest has another name")?;
            let crate_types = list(&package["targets"])?.iter().flat_map(|target| {
                let is_library = target["kind"][0] != "example";
                target["crate_types"].as_array().filter(|_| is_library).into_iter().flatten()
            });
            let is_driver = crate_types.into_iter().any(|kind| kind == "cdylib");
            let mut uses = Vec::new();
            for dependency in list(&package["dependencies"])? {
                if let Some(path) = dependency["path"].as_str() {
                    uses.push(Use { place: place(path), only_tests: dependency["kind"] == "dev" });
                }
            }
            packages.push(Self { place: place(directory), is_driver, uses });
        }
        Ok(packages)
    }
}

fn text(value: &Value) -> Result<&str, Box<dyn Error>> {
    value.as_str().ok_or_else(|| "cargo metadata lacks a text".into())
}

fn list(value: &Value) -> Result<&Vec<Value>, Box<dyn Error>> {
    value.as_array().ok_or_else(|| "cargo metadata lacks a list".into())
}

/// The rule.
pub fn one_way(packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let is_driver =
        |place: &str| packages.iter().any(|package| package.place == place && package.is_driver);
    for package in packages {
        for used in &package.uses {
            if let Some(reason) = refusal(package, used, is_driver(&used.place)) {
                let file = format!("{}/Cargo.toml", package.place);
                violations.push(Violation {
                    file,
                    line: 0,
                    rule: RULE,
                    message: format!("uses {}, but {reason}", used.place),
                });
            }
        }
    }
    violations
}

fn refusal(package: &Package, used: &Use, used_is_driver: bool) -> Option<&'static str> {
    let place = package.place.as_str();
    if place == "driver-api" {
        return Some("driver-api stands alone: authors depend on it, and on nothing else of ours");
    }
    if used.place == "driver-api" {
        return None;
    }
    if place == "tests/conformance" || place.starts_with("tests/drivers/") {
        return Some("what is built against drivers or as one knows driver-api only");
    }
    if place.starts_with("drivers/") {
        if used.only_tests && used.place.starts_with("tests/") {
            return None;
        }
        let library = used.place.starts_with("drivers/") && !used_is_driver;
        return (!library).then_some("a driver knows driver-api and driver libraries only");
    }
    if place.starts_with("host/") {
        return Some("a part of the host knows driver-api only");
    }
    if place == "host" {
        let known = used.place == "tests/conformance" || used.place.starts_with("host/");
        return (!known).then_some("the host knows drivers by their ABI only");
    }
    (!place.starts_with("tests/")).then_some("only tests may look at several rooms")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Package, Use, one_way};

    fn package(place: &str, uses: &[&str]) -> Package {
        let uses = uses.iter().map(|used| Use {
            place: used.trim_end_matches('?').to_owned(),
            only_tests: used.ends_with('?'),
        });
        let is_driver = place.starts_with("drivers/") && place != "drivers/log-volume";
        Package { place: place.to_owned(), is_driver, uses: uses.collect() }
    }

    fn broken(packages: &[Package]) -> Vec<String> {
        one_way(packages).into_iter().map(|violation| violation.file).collect()
    }

    #[test]
    fn the_house_as_drawn_is_clean() {
        let packages = [
            package("driver-api", &[]),
            package("host", &["driver-api", "host/nbd", "tests/conformance"]),
            package("host/nbd", &["driver-api"]),
            package("drivers/local", &["driver-api", "tests/conformance?"]),
            package("drivers/object-storage", &["driver-api", "drivers/log-volume"]),
            package("drivers/log-volume", &["driver-api"]),
            package("tests/conformance", &["driver-api"]),
            package("tests/end-to-end", &["host", "driver-api", "drivers/local"]),
        ];
        assert_eq!(broken(&packages), [""; 0]);
    }

    #[test]
    fn arrows_back_are_found() {
        let packages = [
            package("driver-api", &["tests/conformance?"]),
            package("host", &["drivers/local?"]),
            package("host/nbd", &["host"]),
            package("drivers/local", &["host?"]),
            package("drivers/ceph", &["drivers/local"]),
            package("drivers/netfs", &["tests/conformance"]),
            package("tests/conformance", &["host"]),
            package("tests/drivers/faulty", &["drivers/log-volume"]),
        ];
        let files: Vec<_> =
            packages.iter().map(|package| format!("{}/Cargo.toml", package.place)).collect();
        assert_eq!(broken(&packages), files);
    }

    #[test]
    fn metadata_is_understood() {
        let metadata = json!({
            "workspace_root": "/x",
            "packages": [{
                "manifest_path": "/x/drivers/local/Cargo.toml",
                "targets": [{ "kind": ["cdylib", "rlib"], "crate_types": ["cdylib", "rlib"] }],
                "dependencies": [
                    { "path": "/x/driver-api", "kind": null },
                    { "path": "/x/tests/conformance", "kind": "dev" },
                    { "kind": null },
                ],
            }, {
                "manifest_path": "/x/driver-api/Cargo.toml",
                "targets": [{ "kind": ["lib"], "crate_types": ["lib"] }, { "kind": ["example"], "crate_types": ["cdylib"] }],
                "dependencies": [],
            }],
        });
        let packages = Package::all(&metadata).unwrap();
        assert_eq!(packages[0], package("drivers/local", &["driver-api", "tests/conformance?"]));
        assert_eq!(packages[1], package("driver-api", &[]));
    }
}
