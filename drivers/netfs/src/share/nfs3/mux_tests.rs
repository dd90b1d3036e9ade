// SPDX-License-Identifier: Apache-2.0
//! The multiplexer against a peer that follows a script.

use tokio::{
    io::{DuplexStream, duplex},
    task::JoinSet,
};

use super::*;

const SOON: Duration = Duration::from_secs(20);

/// A connection and its other end.
fn connected(silence: Duration) -> (Arc<Mux>, DuplexStream, Arc<Figures>) {
    let (ours, theirs) = duplex(1 << 20);
    let figures = Arc::new(Figures::default());
    (Arc::new(Mux::new(ours, silence, Arc::clone(&figures))), theirs, figures)
}

fn record(body: &[u8]) -> Record {
    let mut head = vec![0; 8];
    head.extend_from_slice(body);
    Record { head, payload: Bytes::new() }
}

/// Reads a call: its transaction id and the rest.
async fn heard(peer: &mut DuplexStream) -> (u32, Vec<u8>) {
    let mark = peer.read_u32().await.expect("a mark");
    assert_ne!(mark & LAST, 0, "calls are sent whole");
    let mut record = vec![0; (mark & !LAST) as usize];
    peer.read_exact(&mut record).await.expect("a record");
    ((&record[..4]).get_u32(), record[4..].to_vec())
}

/// Sends bytes as one fragment.
async fn say(peer: &mut DuplexStream, bytes: &[u8], last: bool) {
    let mark = bytes.len() as u32 | if last { LAST } else { 0 };
    peer.write_u32(mark).await.expect("written");
    peer.write_all(bytes).await.expect("written");
}

fn answer(xid: u32, body: &[u8]) -> Vec<u8> {
    [&xid.to_be_bytes()[..], body].concat()
}

fn ask(
    mux: &Arc<Mux>,
    body: &[u8],
    patience: Duration,
) -> tokio::task::JoinHandle<Result<Bytes, Fault>> {
    let (mux, body) = (Arc::clone(mux), body.to_vec());
    tokio::spawn(async move { mux.call(record(&body), Instant::now() + patience).await })
}

#[tokio::test]
async fn answers_in_any_order_find_their_calls() {
    let (mux, mut peer, _) = connected(SOON);
    let mut calls = JoinSet::new();
    for number in 0..100_u32 {
        let mux = Arc::clone(&mux);
        calls.spawn(async move {
            let body = number.to_be_bytes();
            let reply = mux.call(record(&body), Instant::now() + SOON).await.expect("answered");
            assert_eq!(&reply[4..], &body[..], "the answer of another call");
        });
    }
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(heard(&mut peer).await);
    }
    fastrand::shuffle(&mut all);
    for (xid, body) in all {
        say(&mut peer, &answer(xid, &body), true).await;
    }
    while let Some(done) = calls.join_next().await {
        done.expect("no panic");
    }
}

#[tokio::test]
async fn a_payload_is_sent_behind_its_head_and_padded() {
    let (mux, mut peer, _) = connected(SOON);
    let call = tokio::spawn({
        let mux = Arc::clone(&mux);
        async move {
            let mut sent = record(b"head");
            sent.payload = Bytes::from_static(b"12345");
            mux.call(sent, Instant::now() + SOON).await
        }
    });
    let (xid, body) = heard(&mut peer).await;
    assert_eq!(body, b"head12345\0\0\0");
    say(&mut peer, &answer(xid, b"ok"), true).await;
    assert_eq!(&call.await.expect("no panic").expect("answered")[4..], b"ok");
}

#[tokio::test]
async fn fragments_are_joined() {
    let (mux, mut peer, _) = connected(SOON);
    let call = ask(&mux, b"q", SOON);
    let (xid, _) = heard(&mut peer).await;
    let whole = answer(xid, b"in three parts");
    say(&mut peer, &whole[..3], false).await;
    say(&mut peer, &whole[3..9], false).await;
    say(&mut peer, &whole[9..], true).await;
    assert_eq!(&call.await.expect("no panic").expect("answered")[4..], b"in three parts");
}

#[tokio::test]
async fn a_clean_close_ends_every_waiting_call() {
    let (mux, mut peer, _) = connected(SOON);
    let calls = [ask(&mux, b"a", SOON), ask(&mux, b"b", SOON)];
    heard(&mut peer).await;
    heard(&mut peer).await;
    drop(peer);
    for call in calls {
        let ended = call.await.expect("no panic").expect_err("nobody answered");
        assert!(matches!(ended, Fault::Lost { sent: true, .. }), "{ended}");
    }
    let late = mux.call(record(b"c"), Instant::now() + SOON).await.expect_err("closed");
    assert!(matches!(late, Fault::Lost { sent: false, .. }), "{late}");
}

#[tokio::test]
async fn a_close_inside_a_fragment_ends_every_waiting_call() {
    let (mux, mut peer, _) = connected(SOON);
    let call = ask(&mux, b"a", SOON);
    let (xid, _) = heard(&mut peer).await;
    peer.write_u32(LAST | 100).await.expect("written");
    peer.write_u32(xid).await.expect("written");
    drop(peer);
    let ended = call.await.expect("no panic").expect_err("cut off");
    assert!(ended.to_string().contains("inside an answer"), "{ended}");
    assert!(ended.is_unknown());
}

#[tokio::test]
async fn an_answer_that_is_too_long_ends_the_connection_unread() {
    for mark in [
        LAST | 0x7fff_ffff,
        LAST | (LONGEST_REPLY as u32 + 1),
        LONGEST_REPLY as u32 + 1,
        0,
        LAST | 3,
    ] {
        let (mux, mut peer, _) = connected(SOON);
        let call = ask(&mux, b"a", SOON);
        heard(&mut peer).await;
        peer.write_u32(mark).await.expect("written");
        peer.write_all(&[0; 3]).await.expect("written");
        let ended = call.await.expect("no panic").expect_err("too long");
        assert!(matches!(ended, Fault::Lost { sent: true, .. }), "{mark:#x}: {ended}");
        assert!(mux.ended().is_some());
    }
}

#[tokio::test]
async fn fragments_that_are_too_long_together_end_the_connection() {
    let (mux, mut peer, _) = connected(SOON);
    let call = ask(&mux, b"a", SOON);
    let (xid, _) = heard(&mut peer).await;
    let half = answer(xid, &vec![0; LONGEST_REPLY / 2]);
    let feeding = tokio::spawn(async move {
        say(&mut peer, &half, false).await;
        say(&mut peer, &half, false).await;
        let _ = peer.write_u32(LAST | 4).await;
        peer
    });
    call.await.expect("no panic").expect_err("too long");
    assert!(mux.ended().is_some());
    drop(feeding.await.expect("no panic"));
}

#[tokio::test]
async fn an_answer_to_nobody_is_thrown_away() {
    let (mux, mut peer, figures) = connected(SOON);
    let call = ask(&mux, b"a", SOON);
    let (xid, _) = heard(&mut peer).await;
    say(&mut peer, &answer(xid.wrapping_add(7), b"wrong"), true).await;
    say(&mut peer, &answer(xid, b"right"), true).await;
    assert_eq!(&call.await.expect("no panic").expect("answered")[4..], b"right");
    let stats = figures.stats("m", driver_api::Stats::new());
    let strays = stats.metrics.iter().find(|metric| metric.name == "mount_stray_replies_total");
    assert_eq!(strays.expect("counted").value, 1.0);
}

#[tokio::test]
async fn a_late_answer_harms_nobody() {
    let (mux, mut peer, _) = connected(SOON);
    let slow = ask(&mux, b"slow", Duration::from_millis(50));
    let (late, _) = heard(&mut peer).await;
    let ended = slow.await.expect("no panic").expect_err("too late");
    assert!(matches!(ended, Fault::TimedOut { sent: true, .. }), "{ended}");
    let next = ask(&mux, b"next", SOON);
    let (xid, _) = heard(&mut peer).await;
    assert_ne!(xid, late);
    say(&mut peer, &answer(late, b"late"), true).await;
    say(&mut peer, &answer(xid, b"next"), true).await;
    assert_eq!(&next.await.expect("no panic").expect("answered")[4..], b"next");
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_and_a_slow_one_is_not() {
    let (mux, mut peer, _) = connected(Duration::from_millis(100));
    let slow = ask(&mux, b"slow", SOON);
    let (slow_xid, _) = heard(&mut peer).await;
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        say(&mut peer, &answer(slow_xid.wrapping_add(1000), b"life"), true).await;
    }
    say(&mut peer, &answer(slow_xid, b"at last"), true).await;
    slow.await.expect("no panic").expect("answered");
    let begun = Instant::now();
    let deaf = ask(&mux, b"deaf", SOON).await.expect("no panic").expect_err("silence");
    assert!(matches!(deaf, Fault::Lost { sent: true, .. }), "{deaf}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_call_that_was_dropped_disturbs_no_other() {
    let (mux, mut peer, _) = connected(SOON);
    let dropped = ask(&mux, b"dropped", SOON);
    let (first, _) = heard(&mut peer).await;
    dropped.abort();
    let _ = dropped.await;
    let next = ask(&mux, b"next", SOON);
    let (second, _) = heard(&mut peer).await;
    say(&mut peer, &answer(first, b"x"), true).await;
    say(&mut peer, &answer(second, b"y"), true).await;
    assert_eq!(&next.await.expect("no panic").expect("answered")[4..], b"y");
}

#[tokio::test]
async fn what_never_left_is_known_not_to_have_left() {
    // A peer that reads nothing: the first call fills the pipe, the second stays behind it.
    let (ours, peer) = duplex(16);
    let mux = Arc::new(Mux::new(ours, SOON, Arc::default()));
    let first = ask(&mux, &[1; 64], Duration::from_millis(400));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let second = ask(&mux, b"behind", Duration::from_millis(100));
    let ended = second.await.expect("no panic").expect_err("not sent");
    assert!(matches!(ended, Fault::TimedOut { sent: false, .. }), "{ended}");
    let ended = first.await.expect("no panic").expect_err("cut off");
    assert!(matches!(ended, Fault::TimedOut { sent: true, .. }), "{ended}");
    drop(peer);
}
