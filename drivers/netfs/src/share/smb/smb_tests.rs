// SPDX-License-Identifier: Apache-2.0
//! Against Samba: `tests/services/netfs with cargo test -p novastor-driver-netfs --lib smb -- --ignored`.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use driver_api::ErrorKind;
use serde_json::json;
use smb2::client::tree::Tree;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    connect::{Greeted, Past, dialects, end_session, greet, log_in, mount, take_over, validate},
    hello::tamper,
    seal::Seal,
    *,
};
use crate::{
    config::{Config, Place},
    counters::Figures,
};

fn address(key: &str) -> String {
    let dir = std::env::var_os("NOVASTOR_NETFS").expect("NOVASTOR_NETFS names a directory");
    let text = std::fs::read_to_string(PathBuf::from(dir).join("addresses")).expect("addresses");
    let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

fn place(share: &str, versions: &[&str]) -> Place {
    let config: Config = serde_json::from_value(json!({
        "protocol": "smb",
        "versions": versions,
        "server": address("host"),
        "port": address("smb_port").parse::<u16>().expect("a port"),
        "share": address(share),
        "user": address("user"),
        "password": address("password"),
        "domain": address("domain"),
    }))
    .expect("options");
    config.places().expect("places").remove(0)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

async fn mounted(place: &Place, past: &Arc<Past>) -> Smb {
    mount(place, &Arc::new(Figures::default()), past, soon()).await.expect("mounted")
}

fn refusal<T>(result: Result<T, Fault>) -> ErrorKind {
    match result.err() {
        Some(Fault::Refused(error)) => error.kind(),
        other => panic!("{other:?} is no refusal"),
    }
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn what_was_agreed_on_is_told() {
    for (share, version, shown) in [
        ("share", "2.1", "SMB 2.1, signed"),
        ("share", "3.0", "SMB 3.0, signed"),
        ("share", "3.0.2", "SMB 3.0.2, signed"),
        ("share", "3.1.1", "SMB 3.1.1, signed"),
        ("share_encrypted", "3.0", "SMB 3.0, encrypted"),
        ("share_encrypted", "3.0.2", "SMB 3.0.2, encrypted"),
        ("share_encrypted", "3.1.1", "SMB 3.1.1, encrypted"),
    ] {
        let share = mounted(&place(share, &[version]), &Arc::default()).await;
        assert_eq!(share.traits().protocol, shown);
        assert_eq!(share.traits().max_write, 1 << 20);
        share.ping(soon()).await.expect("alive");
        share.unmount(soon()).await.expect("told");
        assert!(matches!(share.ping(soon()).await, Err(Fault::Lost { sent: false, .. })));
    }
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_greeting_that_was_changed_on_the_way_is_noticed() {
    let place = place("share_encrypted", &["3.1.1"]);
    let login = place.login.clone().expect("a login");
    let versions = dialects(&place).expect("versions");
    let figures = Arc::new(Figures::default());
    let Greeted { connection: mut honest, .. } =
        greet(&place, &versions, &figures, soon()).await.expect("greeted");
    log_in(&mut honest, &login).await.expect("logged in");
    let Greeted { connection: mut changed, .. } =
        greet(&place, &versions, &figures, soon()).await.expect("greeted");
    changed.with_preauth_hasher_mut(|hasher| hasher.update(b"another greeting"));
    assert_eq!(refusal(log_in(&mut changed, &login).await), ErrorKind::PERMISSION_DENIED);
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_question_that_was_changed_on_the_way_is_noticed_on_older_versions() {
    for (version, tampered) in [("3.0", false), ("3.0.2", false), ("3.0", true), ("2.1", true)] {
        let place = place("share", &[version]);
        let login = place.login.clone().expect("a login");
        let versions = dialects(&place).expect("versions");
        let figures = Arc::new(Figures::default());
        let Greeted { mut connection, hello, socket } =
            greet(&place, &versions, &figures, soon()).await.expect("greeted");
        let session = log_in(&mut connection, &login).await.expect("logged in");
        let tree = Tree::connect(&mut connection, &place.share).await.expect("a share");
        let seal = Seal::new(&session, None).expect("keys");
        let mux = take_over(connection, &socket, seal, place.silence, &figures).await;
        let link = Link::new(mux.expect("taken over"), tree.tree_id);
        if tampered {
            tamper(&hello);
            let validated = validate(&link, &hello, soon()).await;
            assert_eq!(refusal(validated), ErrorKind::PERMISSION_DENIED);
        } else {
            validate(&link, &hello, soon()).await.expect("confirmed");
        }
    }
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn the_next_login_ends_the_one_before_with_its_files() {
    let (place, past) = (place("share", &["3.1.1"]), Arc::default());
    let name = FileName::new("succession.raw").expect("a name");
    let first = mounted(&place, &past).await;
    let _ = first.remove(&name, soon()).await;
    let made = first.create(&name, 0, soon()).await.expect("made");
    first.close(&made.handle, soon()).await.expect("closed");
    let held = first.open(&name, true, soon()).await.expect("open");

    // Somebody else is kept out, also from removing it, and may look at it.
    let stranger = mounted(&place, &Arc::default()).await;
    assert_eq!(refusal(stranger.open(&name, true, soon()).await), ErrorKind::IN_USE);
    assert_eq!(refusal(stranger.open(&name, false, soon()).await), ErrorKind::IN_USE);
    assert_eq!(refusal(stranger.remove(&name, soon()).await), ErrorKind::IN_USE);
    assert_eq!(
        stranger.look(&name, soon()).await.expect("seen").facts.identity,
        made.facts.identity
    );

    // The one that takes its place is not; and nothing of the old one lands any more.
    let second = mounted(&place, &past).await;
    let again = second.open(&name, true, soon()).await.expect("open");
    assert_eq!(again.facts.identity, held.facts.identity);
    let data = Bytes::from_static(b"from the past");
    let late = first.write(&held.handle, 0, data, false, soon()).await;
    assert!(matches!(late, Err(Fault::Lost { .. })), "{late:?}");
    let read = second.read(&again.handle, 0, 100, soon()).await.expect("read");
    assert!(read.data.is_empty() && read.at_end);
    second.close(&again.handle, soon()).await.expect("closed");
    second.remove(&name, soon()).await.expect("removed");
}

/// Stands between one client and the server, and remembers the status of each answer that is not encrypted.
async fn overheard(server: u16) -> (u16, Arc<Mutex<Vec<u32>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let statuses = Arc::<Mutex<Vec<u32>>>::default();
    let heard = Arc::clone(&statuses);
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let server = TcpStream::connect((address("host"), server)).await.expect("the server");
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
        while let Ok(length) = from_server.read_u32().await {
            let mut message = vec![0; length as usize];
            from_server.read_exact(&mut message).await.expect("a whole message");
            if message.starts_with(b"\xfeSMB") {
                let status = message[8..12].try_into().expect("four bytes");
                heard.lock().expect("unharmed").push(u32::from_le_bytes(status));
            }
            let _ = to_client.write_u32(length).await;
            let _ = to_client.write_all(&message).await;
        }
    });
    (port, statuses)
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn another_host_ends_a_login_with_its_files() {
    for (share, version) in [("share", "2.1"), ("share", "3.1.1"), ("share_encrypted", "3.1.1")] {
        let place = place(share, &[version]);
        let (port, statuses) = overheard(place.port.expect("a port")).await;
        let first = mounted(&Place { port: Some(port), ..place.clone() }, &Arc::default()).await;
        let name = FileName::new("taken.raw").expect("a name");
        let _ = first.remove(&name, soon()).await;
        drop(first.create(&name, 0, soon()).await.expect("made"));
        let held = first.open(&name, true, soon()).await.expect("open");
        let second = mounted(&place, &Arc::default()).await;
        assert_eq!(refusal(second.open(&name, true, soon()).await), ErrorKind::IN_USE);

        let figures = Arc::new(Figures::default());
        let end = |session| end_session(&place, &figures, session, soon());
        end(first.session()).await.expect("ended");
        let taken = second.open(&name, true, soon()).await.expect("open");
        let data = Bytes::from_static(b"from the past");
        let late = first.write(&held.handle, 0, data, false, soon()).await;
        assert!(matches!(late, Err(Fault::Lost { .. })), "{late:?}");
        if share == "share" {
            let refused = NtStatus::USER_SESSION_DELETED.0;
            let last = statuses.lock().expect("unharmed").last().copied();
            assert_eq!(last, Some(refused), "{version}");
        }
        let read = second.read(&taken.handle, 0, 100, soon()).await.expect("read");
        assert!(read.data.is_empty() && read.at_end);

        // What is over stays over, what never was changes nothing.
        for session in [first.session(), 0x7777_7777_7777_7777] {
            end(session).await.expect("nothing to end");
        }
        second.ping(soon()).await.expect("alive");
        second.close(&taken.handle, soon()).await.expect("closed");
        second.remove(&name, soon()).await.expect("removed");
    }
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn a_file_that_nobody_wants_any_more_is_closed() {
    let share = mounted(&place("share", &["3.1.1"]), &Arc::default()).await;
    let name = FileName::new("dropped.raw").expect("a name");
    let _ = share.remove(&name, soon()).await;
    let made = share.create(&name, 0, soon()).await.expect("made");
    drop(made);
    for _ in 0..20 {
        drop(share.open(&name, true, soon()).await.expect("open"));
        // Given up before the answer.
        let hurried = Instant::now() + Duration::from_micros(300);
        let _ = share.open(&name, true, hurried).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    share.remove(&name, soon()).await.expect("removed");
    assert!(matches!(share.look(&name, soon()).await, Err(Fault::NotFound)));
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn capitals_make_another_file_and_none_is_taken_for_another() {
    let share = mounted(&place("share", &["3.1.1"]), &Arc::default()).await;
    let [small, large, old, other] = ["case.raw", "CASE.raw", "Old.img", "old.img"]
        .map(|name| FileName::new(name).expect("a name"));
    for name in [&small, &large] {
        let _ = share.remove(name, soon()).await;
    }
    let one = share.create(&small, 0, soon()).await.expect("made").facts.identity;
    let two = share.create(&large, 0, soon()).await.expect("made").facts.identity;
    assert_ne!(one, two);
    assert_eq!(share.look(&small, soon()).await.expect("seen").facts.identity, one);
    assert_eq!(share.look(&large, soon()).await.expect("seen").facts.identity, two);
    // An image that was there before has its name, and no other.
    let there = PathBuf::from(address("share_path")).join("Old.img");
    std::fs::write(&there, b"old").expect("an image");
    assert_eq!(share.look(&old, soon()).await.expect("seen").facts.size, 3);
    assert!(matches!(share.look(&other, soon()).await, Err(Fault::NotFound)));
    assert!(matches!(share.open(&other, true, soon()).await, Err(Fault::NotFound)));
    assert!(matches!(share.remove(&other, soon()).await, Err(Fault::NotFound)));
    let listed = share.list(soon()).await.expect("listed");
    for name in ["case.raw", "CASE.raw", "Old.img"] {
        assert_eq!(listed.iter().filter(|entry| entry.name == name).count(), 1, "{name}");
    }
    for name in [&small, &large, &old] {
        share.remove(name, soon()).await.expect("removed");
    }
    assert!(!there.exists());
}

#[tokio::test]
#[ignore = "needs Samba: tests/services/netfs"]
async fn names_are_changed_as_they_should_be() {
    let share = mounted(&place("share", &["3.1.1"]), &Arc::default()).await;
    let [one, two] = ["one.raw", "two.raw"].map(|name| FileName::new(name).expect("a name"));
    for name in [&one, &two] {
        let _ = share.remove(name, soon()).await;
        drop(share.create(name, 0, soon()).await.expect("made"));
    }
    assert!(matches!(share.create(&one, 0, soon()).await, Err(Fault::Exists)));
    let before = share.look(&one, soon()).await.expect("seen").facts;
    share.rename(&one, &two, soon()).await.expect("renamed over another one");
    assert_eq!(share.look(&two, soon()).await.expect("seen").facts.identity, before.identity);
    assert!(matches!(share.look(&one, soon()).await, Err(Fault::NotFound)));
    let listed = share.list(soon()).await.expect("listed");
    let found = listed.iter().find(|entry| entry.name == "two.raw").expect("listed");
    assert_eq!(found.facts.expect("facts").identity, before.identity);
    let file = share.open(&two, true, soon()).await.expect("open");
    share.set_size(&file.handle, 10 << 30, soon()).await.expect("grown");
    let facts = share.look(&two, soon()).await.expect("seen").facts;
    assert_eq!(facts.size, 10 << 30);
    assert!(facts.used < 1 << 20, "{facts:?} is not sparse");
    drop(file);
    share.remove(&two, soon()).await.expect("removed");
    assert!(matches!(share.remove(&two, soon()).await, Err(Fault::NotFound)));
    let space = share.space(soon()).await.expect("space");
    assert!(space.available > 0 && space.available <= space.total);
}
