// SPDX-License-Identifier: Apache-2.0
//! The connection against a server that follows a script.

use smb2::{
    client::session::Session,
    crypto::{encryption::Cipher, signing::SigningAlgorithm},
    types::SessionId,
};
use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};

use super::{
    super::frames::{LONGEST, RELATED, SIGNED, write_header},
    *,
};

const SOON: Duration = Duration::from_secs(20);
const READ: u16 = 8;
const OURS: [u8; 16] = [1; 16];
const THEIRS: [u8; 16] = [2; 16];

fn keys([ours, theirs]: [[u8; 16]; 2]) -> Session {
    Session {
        session_id: SessionId(7),
        signing_key: vec![5; 16],
        encryption_key: Some(ours.to_vec()),
        decryption_key: Some(theirs.to_vec()),
        signing_algorithm: SigningAlgorithm::AesGmac,
        should_sign: true,
        should_encrypt: false,
    }
}

/// The other end of a connection.
struct Peer {
    socket: DuplexStream,
    seal: Seal,
}

/// What came to the other end: the number, credits asked for, and all bytes.
struct Heard {
    id: u64,
    asked: u16,
    bytes: Vec<u8>,
}

fn connected(
    credits: u16,
    silence: Duration,
    cipher: Option<Cipher>,
) -> (Arc<Mux>, Peer, Arc<Figures>) {
    let (ours, theirs) = duplex(4 << 20);
    let figures = Arc::new(Figures::default());
    let seal = Seal::new(&keys([OURS, THEIRS]), cipher).expect("keys");
    let start = Start { next: 10, credits, silence };
    let mux = Mux::new(tokio::io::split(ours), seal, &start, &figures);
    let seal = Seal::new(&keys([THEIRS, OURS]), cipher).expect("keys");
    (Arc::new(mux), Peer { socket: theirs, seal }, figures)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("a field")
}

impl Peer {
    async fn frame(&mut self) -> Vec<u8> {
        let length = self.socket.read_u32().await.expect("a length");
        let mut frame = vec![0; length as usize];
        self.socket.read_exact(&mut frame).await.expect("a frame");
        if self.seal.encrypts() {
            self.seal.decrypt(&mut frame).expect("encrypted");
            frame.drain(..ENVELOPE);
        }
        frame
    }

    async fn hear(&mut self) -> Heard {
        let bytes = self.frame().await;
        let id = u64::from_le_bytes(field(&bytes, 24));
        Heard { id, asked: u16::from_le_bytes(field(&bytes, 14)), bytes }
    }

    async fn say(&mut self, mut message: Vec<u8>) {
        if self.seal.encrypts() {
            message.splice(..0, [0; ENVELOPE]);
            self.seal.encrypt(&mut message).expect("encrypted");
        }
        self.socket.write_u32(message.len() as u32).await.expect("written");
        self.socket.write_all(&message).await.expect("written");
    }

    /// Answers a read, signed.
    async fn answer(&mut self, id: u64, credits: u16, body: &[u8]) {
        let message = self.signed(id, READ, 1, credits, body);
        self.say(message).await;
    }

    fn signed(&self, id: u64, command: u16, flags: u32, credits: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        let mut header = Header::new_request(Command::try_from(command).expect("a command"));
        header.message_id = MessageId(id);
        header.credits = credits;
        write_header(&mut message, &header, flags | SIGNED);
        message.extend(body);
        self.seal.sign_as_server(&mut message);
        message
    }
}

fn message(charge: u16, body: &[u8]) -> Message {
    Message {
        command: Command::Read,
        tree: Some(TreeId(3)),
        charge,
        body: body.to_vec(),
        payload: Bytes::from_static(b"payload"),
    }
}

type Asked = tokio::task::JoinHandle<Result<Vec<Frame>, Fault>>;

fn ask(mux: &Arc<Mux>, charge: u16, body: &[u8], patience: Duration) -> Asked {
    let (mux, message) = (Arc::clone(mux), message(charge, body));
    tokio::spawn(async move { mux.call(vec![message], Instant::now() + patience).await })
}

async fn lost(asked: Asked) -> String {
    match asked.await.expect("no panic") {
        Err(Fault::Lost { sent: true, why }) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_is_signed_or_encrypted_and_its_answer_comes() {
    for cipher in [None, Some(Cipher::Aes128Gcm), Some(Cipher::Aes128Ccm)] {
        let (mux, mut peer, _) = connected(100, SOON, cipher);
        for (number, len) in [(10, 20), (13, 100_000), (16, 1 << 20)] {
            let asked = ask(&mux, 3, b"body", SOON);
            let heard = peer.hear().await;
            assert_eq!(heard.id, number);
            assert_eq!(heard.bytes[64..], *b"bodypayload");
            assert_eq!(field(&heard.bytes, 6), 3_u16.to_le_bytes());
            assert_eq!(field(&heard.bytes, 36), 3_u32.to_le_bytes());
            assert_eq!(field(&heard.bytes, 40), 7_u64.to_le_bytes());
            if cipher.is_none() {
                let mut again = heard.bytes.clone();
                peer.seal.sign(&mut again, &[]).expect("signed");
                assert_eq!(again, heard.bytes);
            }
            let body: Vec<u8> = (0..len).map(|index| index as u8).collect();
            peer.answer(heard.id, 3, &body).await;
            let answers = asked.await.expect("no panic").expect("answered");
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].body, body);
        }
    }
}

#[tokio::test]
async fn answers_in_any_order_find_their_calls() {
    let (mux, mut peer, _) = connected(1000, SOON, None);
    let calls: Vec<_> = (0..100_u8).map(|number| ask(&mux, 1, &[number], SOON)).collect();
    let mut all = Vec::new();
    for _ in 0..100 {
        let heard = peer.hear().await;
        all.push((heard.id, heard.bytes[64]));
    }
    fastrand::shuffle(&mut all);
    for (id, number) in all {
        peer.answer(id, 1, &[number]).await;
    }
    for (number, call) in calls.into_iter().enumerate() {
        let answers = call.await.expect("no panic").expect("answered");
        assert_eq!(answers[0].body[..], [number as u8]);
    }
}

#[tokio::test]
async fn a_chain_is_one_frame_and_its_answers_may_be_one_or_several() {
    for (cipher, together) in [
        (None, true),
        (None, false),
        (Some(Cipher::Aes128Gcm), true),
        (Some(Cipher::Aes128Gcm), false),
    ] {
        let (mux, mut peer, _) = connected(10, SOON, cipher);
        let asked = tokio::spawn({
            let mux = Arc::clone(&mux);
            async move {
                let messages = vec![message(1, b"first"), message(1, b"second")];
                mux.call(messages, Instant::now() + SOON).await
            }
        });
        let frame = peer.frame().await;
        let next = u32::from_le_bytes(field(&frame, 20)) as usize;
        assert_eq!(next, (64 + 5 + 7_usize).next_multiple_of(8));
        assert_eq!(u32::from_le_bytes(field(&frame, 16)) & RELATED, 0);
        assert_eq!(u32::from_le_bytes(field(&frame, next + 16)) & RELATED, RELATED);
        assert_eq!(u64::from_le_bytes(field(&frame, next + 24)), 11);
        assert_eq!(frame[next + 64..], *b"secondpayload");
        let mut one = peer.signed(10, READ, 1, 1, b"12345678");
        let two = peer.signed(11, READ, 1, 1, b"two");
        if together {
            one[20..24].copy_from_slice(&72_u32.to_le_bytes());
            peer.seal.sign_as_server(&mut one);
            peer.say([one, two].concat()).await;
        } else {
            peer.say(two).await;
            peer.say(one).await;
        }
        let answers = asked.await.expect("no panic").expect("answered");
        assert_eq!((&answers[0].body[..], &answers[1].body[..]), (&b"12345678"[..], &b"two"[..]));
    }
}

#[tokio::test]
async fn an_answer_that_nobody_vouches_for_ends_the_connection() {
    type Forge = fn(&Peer, u64) -> Vec<u8>;
    let forgeries: [(&str, Forge); 8] = [
        ("without its signature", |peer, id| {
            let mut message = peer.signed(id, READ, 1, 1, b"data");
            message[48..64].fill(0);
            message[16] &= !(SIGNED as u8);
            message
        }),
        ("without its signature", |peer, id| {
            let mut message = peer.signed(id, READ, 1, 1, b"data");
            message[65] ^= 1;
            message
        }),
        ("without its signature", |peer, id| {
            // Signed as we sign ourselves.
            let mut message = peer.signed(id, READ, 1, 1, b"data");
            peer.seal.sign(&mut message, &[]).expect("signed");
            message
        }),
        ("waits for no answer", |peer, id| peer.signed(id + 1, READ, 1, 1, b"data")),
        ("another kind", |peer, id| peer.signed(id, 9, 1, 1, b"data")),
        ("another kind", |peer, id| peer.signed(id, READ, 0, 1, b"data")),
        ("cut off", |peer, id| {
            let mut message = peer.signed(id, READ, 1, 1, &[0; 100]);
            message[20..24].copy_from_slice(&120_u32.to_le_bytes());
            message
        }),
        ("encrypts what should be signed", |_, _| [&ENCRYPTED[..], &[0; 200]].concat()),
    ];
    for (expected, forged) in forgeries {
        let (mux, mut peer, _) = connected(10, SOON, None);
        let asked = ask(&mux, 1, b"body", SOON);
        let heard = peer.hear().await;
        let forged = forged(&peer, heard.id);
        peer.say(forged).await;
        let why = lost(asked).await;
        assert!(why.contains(expected), "{why}: {expected}");
        let later = mux.call(vec![message(1, b"")], Instant::now() + SOON).await;
        assert!(matches!(later, Err(Fault::Lost { sent: false, .. })), "{later:?}");
    }
}

#[tokio::test]
async fn an_answer_in_the_clear_is_refused_where_all_is_encrypted() {
    let (mux, mut peer, _) = connected(10, SOON, Some(Cipher::Aes128Gcm));
    let asked = ask(&mux, 1, b"body", SOON);
    let heard = peer.hear().await;
    let message = peer.signed(heard.id, READ, 1, 1, b"data");
    peer.socket.write_u32(message.len() as u32).await.expect("written");
    peer.socket.write_all(&message).await.expect("written");
    assert!(lost(asked).await.contains("without encryption"));
}

#[tokio::test]
async fn an_answer_that_comes_again_ends_the_connection() {
    let (mux, mut peer, _) = connected(10, SOON, None);
    let first = ask(&mux, 1, b"first", SOON);
    let heard = peer.hear().await;
    let answer = peer.signed(heard.id, READ, 1, 1, b"data");
    peer.say(answer.clone()).await;
    first.await.expect("no panic").expect("answered");
    let second = ask(&mux, 1, b"second", SOON);
    peer.hear().await;
    peer.say(answer).await;
    assert!(lost(second).await.contains("waits for no answer"));
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_not_read() {
    for length in [0, 63, LONGEST as u32 + 1, u32::MAX] {
        let (mux, mut peer, _) = connected(10, SOON, None);
        let asked = ask(&mux, 1, b"body", SOON);
        peer.hear().await;
        peer.socket.write_u32(length).await.expect("written");
        assert!(lost(asked).await.contains(&format!("{length} bytes")));
    }
}

#[tokio::test]
async fn the_server_says_how_much_may_be_on_its_way() {
    let (mux, mut peer, _) = connected(4, SOON, None);
    let first = ask(&mux, 3, b"first", SOON);
    let heard = peer.hear().await;
    // More are wanted from the beginning.
    assert_eq!(i64::from(heard.asked), CREDITS - 1);
    let second = ask(&mux, 2, b"second", SOON);
    let nothing = tokio::time::timeout(Duration::from_millis(100), peer.hear()).await;
    assert!(nothing.is_err(), "it has not paid");
    // Somebody who gives up meanwhile has sent nothing and costs nothing.
    let impatient = ask(&mux, 2, b"third", Duration::from_millis(50)).await.expect("no panic");
    assert!(matches!(impatient, Err(Fault::TimedOut { sent: false, .. })), "{impatient:?}");
    peer.answer(heard.id, 2, b"").await;
    first.await.expect("no panic").expect("answered");
    let heard = peer.hear().await;
    // A message's number is the one behind all that those before it cost.
    assert_eq!((heard.id, &heard.bytes[64..70]), (13, &b"second"[..]));
    assert_eq!(i64::from(heard.asked), CREDITS - 1);
    peer.answer(heard.id, 100, b"").await;
    second.await.expect("no panic").expect("answered");
    let _third = ask(&mux, 16, b"third", SOON);
    assert_eq!(peer.hear().await.id, 15);
}

#[tokio::test]
async fn an_interim_answer_is_none() {
    let (mux, mut peer, _) = connected(1, SOON, None);
    let asked = ask(&mux, 1, b"body", SOON);
    let heard = peer.hear().await;
    let mut interim = peer.signed(heard.id, READ, 3, 5, &[0; 9]);
    interim[8..12].copy_from_slice(&0x0000_0103_u32.to_le_bytes());
    interim[48..64].fill(0);
    peer.say(interim).await;
    // Its credits count.
    let other = ask(&mux, 5, b"other", SOON);
    let late = peer.hear().await;
    peer.answer(heard.id, 0, b"done").await;
    assert_eq!(asked.await.expect("no panic").expect("answered")[0].body[..], *b"done");
    peer.answer(late.id, 0, b"").await;
    other.await.expect("no panic").expect("answered");
}

#[tokio::test]
async fn an_answer_after_the_deadline_is_thrown_away() {
    let (mux, mut peer, _) = connected(10, SOON, None);
    let asked = ask(&mux, 1, b"body", Duration::from_millis(50));
    let heard = peer.hear().await;
    let outcome = asked.await.expect("no panic");
    assert!(matches!(outcome, Err(Fault::TimedOut { sent: true, .. })), "{outcome:?}");
    peer.answer(heard.id, 1, b"late").await;
    let asked = ask(&mux, 1, b"body", SOON);
    let heard = peer.hear().await;
    peer.answer(heard.id, 1, b"in time").await;
    assert_eq!(asked.await.expect("no panic").expect("answered")[0].body[..], *b"in time");
}

#[tokio::test]
async fn a_server_that_is_silent_is_asked_and_then_given_up() {
    let silence = Duration::from_secs(1);
    let (mux, mut peer, _) = connected(10, silence, None);
    let begun = Instant::now();
    let asked = ask(&mux, 1, b"body", SOON);
    let heard = peer.hear().await;
    // It is slow but there: a call may take longer than the silence that is allowed.
    for _ in 0..6 {
        let echo = peer.hear().await;
        assert_eq!(echo.bytes[12..14], [13, 0]);
        let answer = peer.signed(echo.id, 13, 1, 1, &[4, 0, 0, 0]);
        peer.say(answer).await;
    }
    assert!(begun.elapsed() > silence);
    assert!(!asked.is_finished());
    peer.answer(heard.id, 1, b"").await;
    asked.await.expect("no panic").expect("answered");
    let asked = ask(&mux, 1, b"body", SOON);
    peer.hear().await;
    peer.hear().await;
    assert!(lost(asked).await.contains("nothing came"));
}

#[tokio::test]
async fn the_end_of_the_connection_is_told_to_all() {
    let (mux, mut peer, _) = connected(2, SOON, None);
    let sent = ask(&mux, 2, b"sent", SOON);
    let waiting = ask(&mux, 2, b"waiting", SOON);
    peer.hear().await;
    drop(peer);
    lost(sent).await;
    let waiting = waiting.await.expect("no panic");
    assert!(matches!(waiting, Err(Fault::Lost { sent: false, .. })), "{waiting:?}");
}
