// SPDX-License-Identifier: Apache-2.0
//! Mounts at run time: `tests/services/netfs with cargo test -p novastor-driver-netfs --test 'netfs_*' -- --ignored`.

mod support;

use driver_api::{Backend, Error, ErrorKind, Result, Volume, VolumeSpec};
use netfs::NetfsBackend;
use serde_json::{Value, json};
use support::{
    CX, MIB, attach, expect, open,
    real::{address, ganesha, ganesha4, port},
    write,
};

async fn run(backend: &NetfsBackend, command: &str, arguments: Value) -> Result<Value> {
    let commands = backend.commands().expect("commands");
    let text = commands.run(&CX, command, &arguments.to_string()).await?;
    Ok(serde_json::from_str(&text).expect("JSON"))
}

fn names(exports: &Value) -> Vec<&str> {
    let all = exports.as_array().expect("a list").iter();
    all.map(|export| export["export"].as_str().expect("a name")).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_server_is_asked_what_it_has() {
    let v3 = run(&open(ganesha("export")).await, "exports", json!({})).await.expect("asked");
    assert!(names(&v3).contains(&address("export").as_str()), "{v3}");
    let all = ["/export", "/readonly", "/small"];
    for versions in [&["4.0"][..], &["4.1"], &["4.2", "4.1"]] {
        // Also where what is configured is not there.
        let mut options = ganesha4("export", versions);
        options["share"] = json!("/not/there");
        let v4 = run(&open(options).await, "exports", json!({})).await.expect("asked");
        assert!(all.iter().all(|export| names(&v4).contains(export)), "{v4}");
    }
    let smb = json!({
        "protocol": "smb", "versions": ["3.1.1"], "server": address("host"), "share": "not-there",
        "port": port("smb_port"), "user": address("user"), "password": address("password"),
        "domain": address("domain"),
    });
    let shares = run(&open(smb).await, "exports", json!({})).await.expect("asked");
    for share in ["plain", "readonly", "encrypted"] {
        assert!(names(&shares).contains(&share), "{shares}");
    }
}

/// Asking for the list disturbs no volume that is attached.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn shares_come_and_go_while_the_backend_is_open() {
    let backend = open(ganesha4("export", &["4.1"])).await;
    let volume = support::made(&backend, "first", MIB).await;
    write(&volume, 0, 4, MIB).await;
    let kind = |refused: Result<Value>| refused.map_err(|error: Error| error.kind()).err();
    for (arguments, refused) in [
        (json!({ "name": "share", "share": "/small" }), ErrorKind::ALREADY_EXISTS),
        (json!({ "name": "wrong", "share": "/not/there" }), ErrorKind::NOT_FOUND),
        (json!({ "name": "a:b", "share": "/small" }), ErrorKind::INVALID_ARGUMENT),
        (json!({ "name": "x", "no_such": 1 }), ErrorKind::INVALID_ARGUMENT),
        (json!({}), ErrorKind::INVALID_ARGUMENT),
    ] {
        let shown = arguments.to_string();
        assert_eq!(kind(run(&backend, "add-share", arguments).await), Some(refused), "{shown}");
    }
    let before = run(&backend, "mounts", json!({})).await.expect("told");
    assert_eq!(before.as_array().map(Vec::len), Some(1), "nothing that was refused stays");
    let added = json!({ "name": "more", "share": "/small" });
    let added = run(&backend, "add-share", added).await.expect("added");
    assert_eq!((&added["state"], &added["protocol"]), (&json!("mounted"), &json!("NFSv4.1")));
    run(&backend, "exports", json!({ "share": "more" })).await.expect("asked");
    let mut spec = VolumeSpec::new("second", MIB);
    spec.options.push(("share".into(), "more".into()).into());
    backend.create(&CX, spec).await.expect("made on the new share");
    let second = attach(&backend, "second", 1).await;
    write(&second, 0, 5, MIB).await;
    let gone = run(&backend, "remove-share", json!({ "share": "more" })).await;
    assert_eq!(kind(gone), Some(ErrorKind::IN_USE));
    expect(&second, 0, 5, MIB).await;
    second.detach(&CX).await.expect("detached");
    let listed = backend.list(&CX).await.expect("listed");
    assert_eq!(listed.iter().filter(|volume| volume.name == "second").count(), 1);
    let left = run(&backend, "remove-share", json!({ "share": "more" })).await.expect("removed");
    assert_eq!(left.as_array().map(Vec::len), Some(1), "{left}");
    assert_eq!(
        backend.show(&CX, "second").await.expect_err("not here").kind(),
        ErrorKind::NOT_FOUND
    );
    expect(&volume, 0, 4, MIB).await;
    run(&backend, "add-share", json!({ "name": "more", "share": "/small" })).await.expect("again");
    backend.delete(&CX, "second").await.expect("what lies on it stayed");
    volume.detach(&CX).await.expect("detached");
    backend.delete(&CX, "first").await.expect("deleted");
}

/// A file system in memory stands for a share that the kernel has mounted.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the servers of tests/services/netfs"]
async fn a_mount_of_the_kernels_is_used() {
    let small = address("export_small");
    let options = |share: &str, path: &str| json!({ "protocol": "kernel", "versions": [], "share": share, "path": path, "operation_timeout_secs": 2 });
    let refused = open(options(&address("export"), "")).await.list(&CX).await;
    let refused = refused.expect_err("an ordinary directory");
    assert!(format!("{refused:#}").contains("nothing is mounted"), "{refused:#}");
    let directory = std::path::Path::new(&small).join("inside");
    std::fs::create_dir(&directory).expect("made");
    let link = std::path::Path::new(&small).join("link");
    std::os::unix::fs::symlink(&directory, &link).expect("made");
    open(options(&small, "link")).await.list(&CX).await.expect_err("a link");
    std::fs::remove_file(link).expect("removed");
    let backend = open(options(&small, "inside")).await;
    let volume = support::made(&backend, "here", 4 * MIB).await;
    write(&volume, 0, 6, 4 * MIB).await;
    volume.flush(&CX).await.expect("flushed");
    volume.discard(&CX, MIB, MIB).await.expect("discarded");
    for (at, value) in [(0, 6), (MIB, 0), (2 * MIB, 6)] {
        expect(&volume, at, value, MIB).await;
    }
    volume.detach(&CX).await.expect("detached");
    let content = std::fs::read(directory.join("here.raw")).expect("there");
    assert!(content.len() as u64 == 4 * MIB && content[1 << 20] == 0 && content[0] == 6);
    let mounts = run(&backend, "mounts", json!({})).await.expect("told");
    assert_eq!(
        (&mounts[0]["protocol"], &mounts[0]["state"]),
        (&json!("kernel"), &json!("mounted"))
    );
    backend.delete(&CX, "here").await.expect("deleted");
    std::fs::remove_dir(directory).expect("empty");
}
