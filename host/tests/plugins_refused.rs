// SPDX-License-Identifier: Apache-2.0
//! Files that must not be loaded: each is listed with its reason and remedy, and the process goes on.

mod plugins_support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use driver_api::{ErrorKind, descriptor};
use novastor::plugins::{PluginState, Rules, verify};
use object::{
    Endianness,
    elf::FileHeader64,
    read::elf::{FileHeader, ProgramHeader, SectionHeader},
};
use plugins_support::{House, assert_refused, forward, patched, small};

#[test]
fn what_is_no_library() {
    let house = House::new();
    let refused = house.offer("text.so", b"#!/bin/sh\necho hello\n");
    assert_refused(&refused, "text file", "put a driver's .so there");
    assert_refused(&house.offer("empty.so", b""), "empty", "copy it again");
    let refused = house.offer("noise.so", &[0x80, 0x02, 0xff, 0x00, 0x13]);
    assert_refused(&refused, "does not begin like an ELF file", "");
    fs::create_dir(house.plugins.join("directory.so")).expect("a directory");
    house.registry.rescan().expect("a scan");
    assert_refused(&house.status("directory.so"), "not a regular file", "");
    symlink("nowhere", house.plugins.join("dangling.so")).expect("a link");
    house.registry.rescan().expect("a scan");
    assert_refused(&house.status("dangling.so"), "cannot be read", "check that it exists");
    house.put("README.md", b"not even looked at");
    house.registry.rescan().expect("a scan");
    assert_eq!(house.registry.list().len(), 5);
}

#[test]
fn a_truncated_library_at_many_lengths() {
    let house = House::new();
    let whole = small();
    let header = FileHeader64::<Endianness>::parse(whole).expect("a header");
    let endian = header.endian().expect("a byte order");
    let mut ends: Vec<u64> = vec![1, 3, 4, 15, 16, 19, 20, 63, 64, 65, whole.len() as u64 - 1];
    // Around the end of everything that the file has: there a check that is off by one would show.
    for segment in header.program_headers(endian, whole).expect("segments") {
        let (offset, size) = segment.file_range(endian);
        ends.extend([offset, offset + size].iter().flat_map(|end| [end.saturating_sub(1), *end]));
    }
    for section in header.sections(endian, whole).expect("sections").iter() {
        let (offset, size) = section.file_range(endian).unwrap_or_default();
        ends.extend([offset, (offset + size).saturating_sub(1)]);
    }
    ends.extend((1..32).map(|part| whole.len() as u64 * part / 32));
    ends.retain(|end| *end > 0 && *end < whole.len() as u64);
    ends.sort_unstable();
    ends.dedup();
    let rules = Rules { private_dir: house.private.clone(), allow_sha256: None };
    let file = house.put("cut.so", whole);
    for end in ends.into_iter().rev() {
        let cut = fs::OpenOptions::new().write(true).open(&file).expect("the file");
        cut.set_len(end).expect("a cut file");
        drop(cut);
        let error = verify(&file, &rules).expect_err("a cut file");
        let wanted = if end < 4 { "does not begin like an ELF" } else { "truncated" };
        let text = error.message();
        assert!(text.contains(wanted) || end < 4, "cut at {end}: {text}");
    }
    assert_eq!(fs::read_dir(&house.private).expect("the directory").count(), 0, "copies stay");
    fs::write(&file, whole).expect("the whole file");
    verify(&file, &rules).expect("the whole file is good");
}

#[test]
fn a_segment_that_is_not_all_there() {
    let house = House::new();
    let mut whole = small().to_vec();
    let word = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().expect("8 bytes"));
    // The first program header of the kind that is mapped, and its size in the file.
    let headers = word(32) as usize;
    let load = (headers..).step_by(56).find(|at| whole[*at..at + 4] == 1u32.to_le_bytes());
    let size = load.expect("a mapped segment") + 32;
    whole[size..size + 8].copy_from_slice(&(1u64 << 40).to_le_bytes());
    assert_refused(&house.offer("f.so", &whole), "truncated: a segment", "copy it again");
}

#[test]
fn another_architecture() {
    let house = House::new();
    let whole = small();
    let sparc = [&whole[..18], &[43, 0], &whole[20..]].concat();
    assert_refused(&house.offer("a.so", &sparc), "built for ELF machine 43", "for this machine");
    let narrow = [&whole[..4], &[1], &whole[5..]].concat();
    assert_refused(&house.offer("b.so", &narrow), "not a 64-bit", "for this machine");
    let executable = [&whole[..16], &[2, 0], &whole[18..]].concat();
    assert_refused(&house.offer("c.so", &executable), "not a shared library", "cdylib");
}

/// Builds a library from C.
fn from_c(house: &House, name: &str, source: &str, arguments: &[&str]) -> Vec<u8> {
    let (input, output) = (house.private.with_extension("c"), house.private.with_extension(name));
    fs::write(&input, source).expect("a source file");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&output, &input])
        .args(arguments)
        .status()
        .expect("cc runs");
    assert!(status.success(), "cc");
    fs::read(output).expect("a library")
}

/// C source of a library that has a descriptor and nothing else.
fn described(unwinds: bool) -> String {
    let bytes = descriptor::encode(descriptor::Role::Driver, unwinds, "from-c", "1.0.0");
    let bytes: Vec<String> = bytes.iter().map(u8::to_string).collect();
    format!(
        "__attribute__((section(\".novastor\"), used)) const unsigned char d[] = {{{}}};",
        bytes.join(",")
    )
}

#[test]
fn a_library_that_is_no_driver() {
    let house = House::new();
    let library = from_c(&house, "plain.so", "int answer(void) { return 42; }", &[]);
    assert_refused(&house.offer("plain.so", &library), "no novastor driver", "export_driver!");
    let library = from_c(&house, "bare.so", &described(true), &[]);
    let refused = house.offer("bare.so", &library);
    assert_refused(&refused, "does not export `novastor_driver_layout`", "export_driver!");
    let other = patched(&library, 8, 9);
    assert_refused(&house.offer("major.so", &other), "driver ABI 9.", "driver-api 1.x");
}

#[test]
fn a_missing_library() {
    let house = House::new();
    let directory = house.private.parent().expect("a directory").to_owned();
    let needed = from_c(&house, "needed.so", "int needed(void) { return 1; }", &[]);
    fs::write(directory.join("libnova_absent.so"), needed).expect("the library");
    let source =
        format!("{} int needed(void); int use(void) {{ return needed(); }}", described(true));
    let library = from_c(
        &house,
        "needing.so",
        &source,
        &["-L", directory.to_str().expect("a path"), "-lnova_absent"],
    );
    fs::remove_file(directory.join("libnova_absent.so")).expect("removed");
    let refused = house.offer("needing.so", &library);
    assert_refused(&refused, "libnova_absent.so", "install what is missing");
}

#[test]
fn panic_abort() {
    let house = House::new();
    let aborts = patched(small(), 16, 0);
    assert_refused(&house.offer("abort.so", &aborts), "panic=abort", "panic = \"unwind\"");
}

#[test]
fn writable_by_others() {
    let house = House::new();
    let whole = small();
    let file = house.put("open.so", whole);
    for (mode, who) in [(0o777, "everybody"), (0o757, "everybody"), (0o775, "its group")] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("a mode");
        house.registry.rescan().expect("a scan");
        let remedy = format!("chmod go-w '{}'", file.display());
        assert_refused(&house.status("open.so"), &format!("written by {who}"), &remedy);
    }
    // The remedy works, and needs no restart.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("a mode");
    house.registry.rescan().expect("a scan");
    assert_eq!(house.status("open.so").state, PluginState::Loaded);
}

#[test]
fn a_directory_writable_by_others() {
    let house = House::new();
    fs::set_permissions(&house.plugins, fs::Permissions::from_mode(0o777)).expect("a mode");
    let refused = house.offer("f.so", small());
    let remedy = format!("chmod go-w '{}'", house.plugins.display());
    assert_refused(&refused, "the directory it is in may be written by everybody", &remedy);
    fs::set_permissions(&house.plugins, fs::Permissions::from_mode(0o755)).expect("a mode");
    house.registry.rescan().expect("a scan");
    assert_eq!(house.status("f.so").state, PluginState::Loaded);
}

#[test]
fn another_owner() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root can give a file away: not shown");
        return;
    }
    let house = House::new();
    let file = house.put("given.so", small());
    std::os::unix::fs::chown(&file, Some(12345), None).expect("chown");
    house.registry.rescan().expect("a scan");
    assert_refused(&house.status("given.so"), "belongs to user 12345", "chown 0");
}

#[test]
fn a_hash_that_is_not_allowed() {
    let sum = {
        let house = House::new();
        house.offer("f.so", small()).sha256
    };
    let house = House::allowing(Some(vec![sum.to_uppercase()]));
    let loaded = house.offer("f.so", small());
    assert_eq!(loaded.state, PluginState::Loaded, "{loaded:?}");
    let refused = house.offer("g.so", &fs::read(forward()).expect("the library"));
    assert_refused(&refused, "not on the allow-list", "add \"");
    let sum = refused.reason.split(' ').nth(2).expect("the sum");
    assert!(refused.remedy.contains(sum), "{refused:?}");
}

#[test]
fn a_private_directory_that_others_reach() {
    let house = House::new();
    fs::create_dir(&house.private).expect("a directory");
    fs::set_permissions(&house.private, fs::Permissions::from_mode(0o755)).expect("a mode");
    let refused = house.offer("f.so", small());
    assert_refused(&refused, "not private", "mode 0700");
}

#[test]
fn a_missing_driver_is_explained() {
    let house = House::new();
    house.offer("libfaulty.so", b"oops");
    house.offer("libforward.so", &fs::read(forward()).expect("the library"));
    let error = house.registry.driver("faulty").expect_err("it is not loaded");
    assert_eq!(error.kind(), ErrorKind::NOT_FOUND);
    let text = format!("{error:#}");
    assert!(text.contains("loaded: forward"), "{text}");
    assert!(text.contains("libfaulty.so: it is a text file"), "{text}");
}

#[test]
fn a_private_directory_on_a_noexec_mount() {
    const MOUNTED: &str = "NOVASTOR_TEST_NOEXEC";
    let Some(mount) = std::env::var_os(MOUNTED) else {
        // A mount of its own needs a process of its own, and rights that not every place gives.
        let mount = tempfile::tempdir().expect("a directory");
        let script =
            "mount -t tmpfs -o noexec,mode=700 none \"$0\" || exit 77; exec \"$1\" --exact \"$2\"";
        let status = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(mount.path())
            .arg(std::env::current_exe().expect("this test"))
            .arg("a_private_directory_on_a_noexec_mount")
            .env(MOUNTED, mount.path())
            .status();
        match status.ok().and_then(|status| status.code()) {
            Some(0) => {}
            Some(101) => panic!("refused wrongly, see above"),
            other => eprintln!("no mount namespace here ({other:?}): not shown"),
        }
        return;
    };
    let house = House::new();
    let file = house.put("f.so", small());
    let private_dir = std::path::Path::new(&mount).join("private");
    let error = verify(&file, &Rules { private_dir, allow_sha256: None })
        .expect_err("a library there could not be mapped");
    assert!(error.message().contains("noexec"), "{error:#}");
    assert!(error.remedy_text().contains("another mount"), "{error:#}");
}

#[test]
fn a_driver_really_built_with_panic_abort() {
    let source = r#"
        fn describe() -> driver_api::DriverInfo { driver_api::DriverInfo::new("aborts") }
        driver_api::export_module!(
            driver_api::descriptor::Role::Driver, "aborts",
            driver_api::export::open_unsupported, driver_api::export::wrap_unsupported, describe
        );
    "#;
    for (strategy, state) in [("abort", PluginState::Refused), ("unwind", PluginState::Loaded)] {
        let house = House::new();
        let status = house.offer("aborts.so", &plugins_support::from_rust(source, strategy));
        assert_eq!(status.state, state, "{status:?}");
        assert_eq!(status.reason.contains("panic=abort"), strategy == "abort", "{status:?}");
    }
}
