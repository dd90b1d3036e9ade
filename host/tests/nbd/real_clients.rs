// SPDX-License-Identifier: Apache-2.0
//! The clients that people use. They must be installed: `apt-get install libnbd-bin qemu-utils fio`.

use std::{fs, process::Command};

use driver_api::Capabilities;

use crate::{
    Serving, pattern, serving, serving_with,
    volume::{ALL, TestVolume},
};

fn uri(at: &Serving, name: &str) -> String {
    format!("nbd+unix:///{name}?socket={}", at.socket.display())
}

/// Runs a program that must succeed; gives what it printed.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} must be installed: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}{errors}");
    text
}

#[test]
fn nbdinfo_sees_the_exports() {
    let volume = TestVolume::new(3 << 20);
    let at = serving_with(vec![("one", volume.clone()), ("two", volume)], |_| {});
    let text = run("nbdinfo", &["--list", &uri(&at, "")]);
    assert!(text.contains("export=\"one\"") && text.contains("export=\"two\""), "{text}");
    let text = run("nbdinfo", &["--json", &uri(&at, "two")]);
    for line in [
        "\"export-size\": 3145728",
        "\"can_flush\": true",
        "\"can_fua\": true",
        "\"can_multi_conn\": true",
        "\"can_trim\": true",
        "\"can_zero\": true",
        "\"can_fast_zero\": true",
        "\"is_read_only\": false",
        "\"description\": \"test volume two\"",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn nbdcopy_and_qemu_img_bring_an_image_in_and_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let mut image = pattern(24 << 20, 11);
    image[4 << 20..12 << 20].fill(0);
    fs::write(path("in.raw"), &image).unwrap();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &path("in.raw"), &path("in.qcow2")]);
    for min_block in [1, 512, 4096] {
        let mut capabilities = Capabilities::new(ALL);
        capabilities.min_block = min_block;
        capabilities.max_io = 1 << 20;
        let volume = TestVolume::with(24 << 20, capabilities);
        let at = serving(&volume);
        let uri = uri(&at, "disk");
        run("qemu-img", &["convert", "-n", "-f", "qcow2", "-O", "raw", &path("in.qcow2"), &uri]);
        run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &path("in.raw"), &uri]);
        run("qemu-img", &["convert", "-f", "raw", "-O", "raw", &uri, &path("out.raw")]);
        assert!(fs::read(path("out.raw")).unwrap() == image, "block size {min_block}");
    }
    let volume = TestVolume::new(24 << 20);
    let at = serving(&volume);
    run("nbdcopy", &["--connections=4", "--requests=64", &path("in.raw"), &uri(&at, "disk")]);
    assert!(volume.data() == image);
    run("nbdcopy", &["--connections=4", &uri(&at, "disk"), &path("back.raw")]);
    assert!(fs::read(path("back.raw")).unwrap() == image);
}

#[test]
fn qemu_io_writes_zeroes_discards_and_flushes() {
    let volume = TestVolume::new(8 << 20);
    let at = serving(&volume);
    let commands = [
        "write -P 0x5a 0 1M",
        "write -f -P 0x33 1M 4k",
        "write -z 64k 64k",
        "write -z -u 192k 64k",
        "discard 128k 64k",
        "flush",
        "read -P 0x5a 0 64k",
        "read -P 0 64k 192k",
        "read -P 0x33 1M 4k",
    ];
    let mut arguments = vec!["-f", "raw"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    let uri = uri(&at, "disk");
    arguments.push(&uri);
    let text = run("qemu-io", &arguments);
    assert!(!text.contains("failed") && !text.contains("error"), "{text}");
    let whats: Vec<_> = volume.seen().iter().map(|seen| seen.what).collect();
    for what in ["read", "write", "write_zeroes", "discard", "flush"] {
        assert!(whats.contains(&what), "{what} never arrived");
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    let volume = TestVolume::new(16 << 20).without_log();
    let at = serving(&volume);
    let directory = tempfile::tempdir().unwrap();
    run(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &format!("--uri={}", uri(&at, "disk")),
            "--rw=randwrite",
            "--bsrange=4k-128k",
            "--size=16M",
            "--iodepth=32",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--fsync=16",
            &format!("--aux-path={}", directory.path().display()),
        ],
    );
}
