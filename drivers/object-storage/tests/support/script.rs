// SPDX-License-Identifier: Apache-2.0
//! A server that answers as a test says, letter by letter.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The headers, in lower case, a line each.
    pub headers: String,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }
}

type Answers = dyn Fn(&Asked, &mut TcpStream) + Send + Sync;

/// A server; its thread ends with the test's process.
pub struct Script {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Script {
    /// Answers each request with the bytes that `answers` gives, and closes the connection.
    pub fn new(answers: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::raw(move |asked, stream| drop(stream.write_all(&answers(asked))))
    }

    /// Has `answers` write to the connection itself.
    pub fn raw(answers: impl Fn(&Asked, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answers): (_, Arc<Answers>) = (Arc::clone(&asked), Arc::new(answers));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), log, answers) =
                    (stream, Arc::clone(&log), Arc::clone(&answers))
                else {
                    return;
                };
                thread::spawn(move || {
                    let Some(request) = read(&mut stream) else { return };
                    log.lock().expect("the log").push(request.clone());
                    answers(&request, &mut stream);
                });
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("the log").clone()
    }

    pub fn count(&self, method: &str, part: &str) -> usize {
        self.asked().iter().filter(|asked| asked.is(method, part)).count()
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let (mut all, mut some) = (Vec::new(), [0; 8192]);
    let end = loop {
        if let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(len) => all.extend_from_slice(&some[..len]),
        }
    };
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let (line, headers) = head.split_once("\r\n").unwrap_or((&head, ""));
    let mut words = line.split(' ').map(str::to_owned);
    let headers = headers.to_lowercase();
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let mut body = all.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut some) {
            Ok(0) | Err(_) => return None,
            Ok(len) => body.extend_from_slice(&some[..len]),
        }
    }
    Some(Asked { method: words.next()?, target: words.next()?, headers, body })
}

/// An answer with a body and its length. `head` is the status, then headers in lines of their own.
pub fn answer(head: &str, body: &str) -> Vec<u8> {
    let head = head.replace('\n', "\r\n");
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// An answer that says no length: it ends with the connection.
pub fn endless(head: &str, body: &str) -> Vec<u8> {
    let head = head.replace('\n', "\r\n");
    format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}
