// SPDX-License-Identifier: Apache-2.0
//! Stands between the driver and a store and does what networks and servers do on bad days. Plain HTTP/1.1.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// The store does it, and the connection ends instead of an answer.
    LoseAnswer,
    /// The store does it, and something on the way answers with this status.
    DoneBut(u16),
    /// The store never sees it; this status is answered.
    Refuse(u16),
    /// The store never sees it; this status is answered with this document.
    Say(u16, &'static str),
    /// The answer's body ends after so many bytes.
    Truncate(usize),
    /// A byte of the answer's body is another one.
    CorruptAnswer,
    /// A byte of the request's body is another one.
    CorruptRequest,
    /// The answer comes byte by byte, one each 100 ms.
    Drip,
    /// Nothing ever comes.
    Silence,
    /// The store does it, and its answer's head has the second text instead of the first.
    Head(&'static str, &'static str),
    /// The store gets to see it so much later.
    Late(Duration),
}

struct Rule {
    method: String,
    path: String,
    fault: Fault,
    left: usize,
}

type Rules = Arc<Mutex<Vec<Rule>>>;
/// The head of each request, and a body that is short.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

/// A proxy for as long as it lives.
pub struct Proxy {
    port: u16,
    rules: Rules,
    seen: Seen,
}

impl Proxy {
    /// Stands before the server of `url`.
    pub fn before(url: &str) -> Self {
        let host = url.trim_start_matches("http://").split('/').next().expect("a host").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (rules, seen) = (Rules::default(), Seen::default());
        let shared = (Arc::clone(&rules), Arc::clone(&seen));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (host, shared) = (host.clone(), shared.clone());
                thread::spawn(move || serve(client, &host, &shared.0, &shared.1));
            }
        });
        Self { port, rules, seen }
    }

    /// The URL that leads through the proxy instead.
    pub fn url(&self, url: &str) -> String {
        let path = url.trim_start_matches("http://").split_once('/').map_or("", |(_, path)| path);
        format!("http://127.0.0.1:{}/{path}", self.port).trim_end_matches('/').to_owned()
    }

    /// The next `times` requests of this method whose path holds `path` fare so.
    pub fn next(&self, method: &str, path: &str, fault: Fault, times: usize) {
        let rule = Rule { method: method.into(), path: path.into(), fault, left: times };
        self.rules.lock().expect("rules").push(rule);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.rules.lock().expect("rules").clear();
    }

    /// How many requests of this method came whose path holds `path`.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let seen = self.seen.lock().expect("seen");
        let fits = |head: &str| {
            let line = head.lines().next().unwrap_or_default();
            line.starts_with(method) && line.contains(path)
        };
        seen.iter().filter(|(head, _)| fits(head)).count()
    }

    /// Head and body of each request so far that holds `word` in its first line.
    pub fn asked(&self, word: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("seen");
        let fits =
            |head: &&(String, String)| head.0.lines().next().unwrap_or_default().contains(word);
        seen.iter().filter(fits).map(|(head, body)| format!("{head}{body}")).collect()
    }
}

fn serve(mut client: TcpStream, host: &str, rules: &Rules, seen: &Seen) {
    let _ = client.set_nodelay(true);
    let mut rest = Vec::new();
    let Some((head, mut body)) = message(&mut client, &mut rest) else { return };
    let line = head.lines().next().unwrap_or_default().to_owned();
    let short = if body.len() < 16 << 10 { String::from_utf8_lossy(&body) } else { "".into() };
    seen.lock().expect("seen").push((head.clone(), short.into_owned()));
    let fault = fault_of(&line, rules);
    let method = line.split(' ').next().unwrap_or_default();
    match fault {
        Some(Fault::Refuse(status)) => {
            let _ = client.write_all(plain(status).as_bytes());
            let _ = client.shutdown(Shutdown::Write);
            return;
        }
        Some(Fault::Say(status, text)) => {
            let head = plain(status).replace("length: 0", &format!("length: {}", text.len()));
            let _ = client.write_all(format!("{head}{text}").as_bytes());
            let _ = client.shutdown(Shutdown::Write);
            return;
        }
        Some(Fault::Silence) => {
            let until = Instant::now() + Duration::from_secs(60);
            while Instant::now() < until && client.peek(&mut [0]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(100));
            }
            return;
        }
        Some(Fault::Late(pause)) => thread::sleep(pause),
        Some(Fault::CorruptRequest) if !body.is_empty() => {
            let at = body.len() / 2;
            body[at] ^= 1;
        }
        _ => {}
    }
    let Some(answer) = ask(host, &head, &body) else { return };
    let split = find(&answer, b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let done = match fault {
        Some(Fault::LoseAnswer) => return,
        Some(Fault::DoneBut(status)) => client.write_all(plain(status).as_bytes()),
        Some(Fault::Truncate(keep)) if method != "HEAD" => {
            client.write_all(&answer[..answer.len().min(split + keep)])
        }
        Some(Fault::CorruptAnswer) if answer.len() > split => {
            let mut answer = answer.clone();
            let at = split + (answer.len() - split) / 2;
            answer[at] ^= 1;
            client.write_all(&answer)
        }
        Some(Fault::Head(old, new)) => {
            let head = String::from_utf8_lossy(&answer[..split]).replace(old, new);
            client.write_all(&[head.as_bytes(), &answer[split..]].concat())
        }
        Some(Fault::Drip) => answer.iter().try_for_each(|byte| {
            thread::sleep(Duration::from_millis(100));
            client.write_all(&[*byte])
        }),
        _ => client.write_all(&answer),
    };
    // The store was asked to close, so its answer ends with the connection.
    if done.is_ok() {
        let _ = client.shutdown(Shutdown::Write);
    }
}

fn fault_of(line: &str, rules: &Rules) -> Option<Fault> {
    let mut rules = rules.lock().expect("rules");
    let fits = |rule: &&mut Rule| {
        rule.left > 0 && line.starts_with(&format!("{} ", rule.method)) && line.contains(&rule.path)
    };
    let rule = rules.iter_mut().find(fits)?;
    rule.left -= 1;
    Some(rule.fault)
}

fn plain(status: u16) -> String {
    format!(
        "HTTP/1.1 {status} Bad day\r\ncontent-length: 0\r\ncontent-type: application/xml\r\nconnection: close\r\n\r\n"
    )
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

/// One request: its head and body.
pub(super) fn message(client: &mut TcpStream, rest: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut chunk = vec![0; 64 << 10];
    let end = loop {
        if let Some(at) = find(rest, b"\r\n\r\n") {
            break at + 4;
        }
        let count = client.read(&mut chunk).ok().filter(|&count| count > 0)?;
        rest.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8(rest.drain(..end).collect()).ok()?;
    let length = header(&head, "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while rest.len() < length {
        let count = client.read(&mut chunk).ok().filter(|&count| count > 0)?;
        rest.extend_from_slice(&chunk[..count]);
    }
    Some((head, rest.drain(..length).collect()))
}

pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// Asks the store, which is to close the connection behind its answer.
fn ask(host: &str, head: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut store = TcpStream::connect(host).ok()?;
    let lines: Vec<&str> = head
        .trim_end()
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .collect();
    let head = format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n"));
    store.write_all(head.as_bytes()).ok()?;
    store.write_all(body).ok()?;
    let mut answer = Vec::new();
    store.read_to_end(&mut answer).ok()?;
    Some(answer)
}
