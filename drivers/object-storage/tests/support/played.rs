// SPDX-License-Identifier: Apache-2.0
//! Services that are no stores, played: those that give out credentials, and a proxy for TLS.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::proxy::{header, message};

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    pub line: String,
    pub head: String,
    pub body: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        header(&self.head, name).unwrap_or_default()
    }

    /// A field of a form.
    pub fn field(&self, name: &str) -> String {
        let found = url::form_urlencoded::parse(self.body.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    }
}

/// A service for as long as the test runs.
pub struct Played {
    pub url: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

impl Played {
    /// What came so far whose first line holds `word`.
    pub fn asked(&self, word: &str) -> Vec<Asked> {
        let seen = self.seen.lock().expect("seen");
        seen.iter().filter(|asked| asked.line.contains(word)).cloned().collect()
    }
}

/// Answers each request with a status and a document. The status 0: silence.
pub fn play(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Played {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (answer, shared) = (Arc::new(answer), Arc::clone(&seen));
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (answer, shared) = (Arc::clone(&answer), Arc::clone(&shared));
            thread::spawn(move || {
                let Some((head, body)) = message(&mut client, &mut Vec::new()) else { return };
                let line = head.lines().next().unwrap_or_default().to_owned();
                let body = String::from_utf8_lossy(&body).into_owned();
                let asked = Asked { line, head, body };
                let (status, text) = answer(&asked);
                shared.lock().expect("seen").push(asked);
                if status == 0 {
                    thread::sleep(Duration::from_secs(30));
                    return;
                }
                let head = format!(
                    "HTTP/1.1 {status} Played\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    text.len()
                );
                let _ = client.write_all(format!("{head}{text}").as_bytes());
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    Played { url, seen }
}

/// A security token service's answer with keys that last so many seconds.
pub fn role_keys(key_id: &str, secret_key: &str, secs: i64) -> String {
    let ends = chrono::Utc::now() + chrono::Duration::milliseconds(secs * 1000);
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>session</SessionToken>\
         <SecretAccessKey>{secret_key}</SecretAccessKey><Expiration>{}</Expiration>\
         <AccessKeyId>{key_id}</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>\
         </AssumeRoleWithWebIdentityResponse>",
        ends.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
    )
}

/// How that service refuses.
pub fn role_refusal(code: &str, message: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
    )
}

/// A proxy that leads every connection to one address, whatever name it is asked for; and the names it was asked for.
pub fn tunnel(to: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let to = to.trim_start_matches("https://").trim_end_matches('/').to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&seen);
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let (to, shared) = (to.clone(), Arc::clone(&shared));
            thread::spawn(move || {
                let Some((head, _)) = message(&mut client, &mut Vec::new()) else { return };
                let line = head.lines().next().unwrap_or_default();
                shared.lock().expect("seen").push(format!(
                    "{line} {}",
                    header(&head, "proxy-authorization").unwrap_or_default()
                ));
                if !line.starts_with("CONNECT ") {
                    let _ = client.write_all(b"HTTP/1.1 400 No\r\ncontent-length: 0\r\n\r\n");
                    return;
                }
                let Ok(mut server) = TcpStream::connect(&to) else { return };
                let _ = client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n");
                let (Ok(from), Ok(back)) = (client.try_clone(), server.try_clone()) else { return };
                let up = thread::spawn(move || pour(from, &mut server));
                pour(back, &mut client);
                let _ = up.join();
            });
        }
    });
    (url, seen)
}

fn pour(mut from: TcpStream, to: &mut TcpStream) {
    let mut chunk = [0; 16 << 10];
    while let Ok(count) = from.read(&mut chunk) {
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
