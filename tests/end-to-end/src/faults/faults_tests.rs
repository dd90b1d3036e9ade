// SPDX-License-Identifier: Apache-2.0

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{Fault, Faults, Rule};

const BODY: &str = "0123456789";

/// What a server remembers: each request's target and body.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A server that answers everything with ten digits: with a length, chunked (`/chunked`) or until it closes (`/close`).
fn server() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let told = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, told) = (client.unwrap(), Arc::clone(&told));
            thread::spawn(move || {
                let mut from = BufReader::new(client.try_clone().unwrap());
                let (target, body) = read(&mut from)?;
                told.lock().unwrap().push((target.clone(), body));
                let answer = match target.split(' ').nth(1)? {
                    "/chunked" => "Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n0\r\n\r\n".to_owned(),
                    "/close" => format!("Connection: close\r\n\r\n{BODY}"),
                    _ => format!("Content-Length: 10\r\n\r\n{BODY}"),
                };
                client.write_all(format!("HTTP/1.1 200 OK\r\n{answer}").as_bytes()).ok()
            });
        }
    });
    (address, seen)
}

/// A message's first line and its body.
fn read(from: &mut impl BufRead) -> Option<(String, String)> {
    let (mut first, mut length) = (String::new(), 0);
    from.read_line(&mut first).ok().filter(|len| *len > 0)?;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|len| *len > 0)?;
        if let Some(value) = line.strip_prefix("Content-Length: ") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    Some((first.trim().to_owned(), String::from_utf8(body).unwrap()))
}

struct Asking {
    stream: TcpStream,
    from: BufReader<TcpStream>,
}

impl Asking {
    fn of(faults: &Faults) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", faults.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let from = BufReader::new(stream.try_clone().unwrap());
        Self { stream, from }
    }

    fn send(&mut self, method: &str, target: &str, body: &str) {
        let length = body.len();
        let text = format!(
            "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        // Who is reset may be so before everything is sent.
        let _ = self.stream.write_all(text.as_bytes());
    }

    fn ask(&mut self, method: &str, target: &str, body: &str) -> Option<(String, String)> {
        self.send(method, target, body);
        read(&mut self.from)
    }

    fn everything(mut self) -> (String, Option<ErrorKind>) {
        let mut bytes = Vec::new();
        let ended = self.from.read_to_end(&mut bytes);
        (String::from_utf8(bytes).unwrap(), ended.err().map(|error| error.kind()))
    }
}

#[test]
fn what_meets_no_fault_passes_unchanged_on_one_connection() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    let mut asking = Asking::of(&faults);
    for _ in 0..3 {
        let answer = asking.ask("PUT", "/a?b=c", "body").unwrap();
        assert_eq!(answer, ("HTTP/1.1 200 OK".to_owned(), BODY.to_owned()));
    }
    assert_eq!(seen.lock().unwrap()[2], ("PUT /a?b=c HTTP/1.1".to_owned(), "body".to_owned()));
    let counts = faults.counts();
    assert_eq!((counts.connections, counts.requests, counts.faults), (1, 3, 0));
    assert_eq!((counts.up, counts.down), (12, 30));
    assert_eq!((faults.requests("PUT"), faults.requests("GET")), (3, 0));
    assert!(faults.last(1).contains("PUT /a?b=c 200"));
}

#[test]
fn chunks_and_bodies_without_an_end_keep_their_framing() {
    let (address, _) = server();
    let faults = Faults::before(address).unwrap();
    let mut asking = Asking::of(&faults);
    asking.send("GET", "/chunked", "");
    asking.send("GET", "/close", "");
    let (text, error) = asking.everything();
    assert_eq!(error, None);
    let (chunked, closed) = text.split_once("0\r\n\r\n").unwrap();
    assert!(chunked.ends_with("\r\n\r\n4\r\n0123\r\n6;x=y\r\n456789\r\n"), "{text}");
    assert!(closed.ends_with("\r\n\r\n0123456789"), "{text}");
}

#[test]
fn rules_choose_by_method_text_and_number() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    let busy = Fault::Answer { status: 503, retry_after: Some(7) };
    let rule = faults
        .arm(Rule::new(busy).methods(&["PUT"]).with("/key").without("?uploads").skip(1).times(2));
    let mut asking = Asking::of(&faults);
    let mut codes = |method, target| {
        let answer = asking.ask(method, target, "x").unwrap();
        answer.0.split(' ').nth(1).unwrap().to_owned()
    };
    let asked = [
        ("GET", "/key"),
        ("PUT", "/other"),
        ("PUT", "/key?uploads"),
        ("PUT", "/key"),
        ("PUT", "/key"),
        ("PUT", "/key"),
        ("PUT", "/key"),
    ];
    let codes: Vec<_> = asked.into_iter().map(|(method, target)| codes(method, target)).collect();
    assert_eq!(codes, ["200", "200", "200", "200", "503", "503", "200"]);
    assert_eq!((faults.hits(rule), faults.counts().faults), (2, 2));
    assert_eq!(seen.lock().unwrap().len(), 5);
    faults.calm();
    assert_eq!(faults.hits(rule), 0);
}

#[test]
fn a_rule_is_over_after_its_time() {
    let (address, _) = server();
    let faults = Faults::before(address).unwrap();
    let busy = Fault::Answer { status: 429, retry_after: None };
    faults.arm(Rule::new(busy).lasting(Duration::from_millis(100)));
    let mut asking = Asking::of(&faults);
    assert!(asking.ask("GET", "/", "").unwrap().0.contains("429"));
    thread::sleep(Duration::from_millis(150));
    assert!(asking.ask("GET", "/", "").unwrap().0.contains("200"));
}

#[test]
fn an_answer_is_lost_or_falsified_after_the_request_was_done() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    faults.arm(Rule::new(Fault::LoseAnswer).times(1));
    faults.arm(Rule::new(Fault::FalseStatus(500)).times(1));
    let mut asking = Asking::of(&faults);
    assert_eq!(asking.ask("PUT", "/a", "1"), None);
    let mut asking = Asking::of(&faults);
    assert!(asking.ask("PUT", "/b", "2").unwrap().0.contains("500"));
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(seen, ["1", "2"]);
}

#[test]
fn something_happens_meanwhile() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    let acts = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&acts);
    let act = move || {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    faults.arm(Rule::new(Fault::Meanwhile(Arc::new(act))).times(1));
    let mut asking = Asking::of(&faults);
    assert!(asking.ask("PUT", "/a", "1").unwrap().0.contains("500"));
    assert_eq!((acts.load(Ordering::SeqCst), seen.lock().unwrap().len()), (1, 0));
}

#[test]
fn an_answers_body_is_cut_or_changed() {
    let (address, _) = server();
    let faults = Faults::before(address).unwrap();
    faults.arm(Rule::new(Fault::Truncate { after: 4 }).times(1));
    faults.arm(Rule::new(Fault::Corrupt { at: 9 }).times(1).with("/chunked"));
    faults.arm(Rule::new(Fault::Corrupt { at: 0 }).times(1));
    let mut asking = Asking::of(&faults);
    asking.send("GET", "/", "");
    assert!(asking.everything().0.ends_with("\r\n\r\n0123"));
    let mut asking = Asking::of(&faults);
    asking.send("GET", "/chunked", "");
    asking.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut bytes = Vec::new();
    asking.from.read_to_end(&mut bytes).unwrap();
    let expected = [b"\r\n45678" as &[u8], &[!b'9'], b"\r\n0\r\n\r\n"].concat();
    assert!(bytes.ends_with(&expected), "{bytes:?}");
    let mut asking = Asking::of(&faults);
    asking.send("GET", "/close", "");
    let mut bytes = Vec::new();
    asking.from.read_to_end(&mut bytes).unwrap();
    assert!(bytes.ends_with(&[&[!b'0'] as &[u8], b"123456789"].concat()), "{bytes:?}");
}

#[test]
fn what_is_never_answered_holds_the_connection() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    for fault in [Fault::BlackHole, Fault::HalfOpen { after: 2 }, Fault::Stall { after: 3 }] {
        faults.calm();
        faults.arm(Rule::new(fault.clone()).times(1));
        let mut asking = Asking::of(&faults);
        asking.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        asking.send("PUT", "/a", "1234");
        let (text, error) = asking.everything();
        assert!(matches!(error, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{fault:?}");
        assert_eq!(text.ends_with("\r\n\r\n012"), matches!(fault, Fault::Stall { .. }), "{text}");
    }
    // Only the last one came whole to the server.
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[test]
fn a_connection_is_reset_in_the_middle_of_a_body() {
    let (address, seen) = server();
    let faults = Faults::before(address).unwrap();
    faults.arm(Rule::new(Fault::Reset { after: 2 }).times(1));
    let mut asking = Asking::of(&faults);
    asking.send("PUT", "/a", "1234");
    let (text, error) = asking.everything();
    assert_eq!((text.as_str(), error), ("", Some(ErrorKind::ConnectionReset)));
    assert!(seen.lock().unwrap().is_empty());
    // A server that is gone looks the same.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let faults = Faults::before(nobody).unwrap();
    let mut asking = Asking::of(&faults);
    assert_eq!(asking.ask("GET", "/", ""), None);
}

#[test]
fn answers_are_late_or_drip() {
    let (address, _) = server();
    let faults = Faults::before(address).unwrap();
    faults.arm(Rule::new(Fault::Delay(Duration::from_millis(100))).times(1));
    let every = Duration::from_millis(20);
    faults.arm(Rule::new(Fault::Drip { bytes: 2, every }).times(1));
    let mut asking = Asking::of(&faults);
    for _ in 0..2 {
        let since = Instant::now();
        assert_eq!(asking.ask("GET", "/", "").unwrap().1, BODY);
        assert!(since.elapsed() >= Duration::from_millis(100));
    }
}
