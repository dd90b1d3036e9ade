// SPDX-License-Identifier: Apache-2.0
//! Fills a bucket that everybody may write to with many empty objects: a few connections, one request after the other on each.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
};

use end_to_end::failure::{Context, Failure, Outcome, ensure};

const CONNECTIONS: u64 = 24;
/// What all keys begin with.
pub const PREFIX: &str = "object-";

/// Writes so many objects.
///
/// # Errors
/// When the server refuses one.
pub fn fill(server: SocketAddr, bucket: &str, objects: u64) -> Outcome {
    thread::scope(|scope| {
        let work = |connection: u64| {
            scope.spawn(move || {
                let numbers =
                    (connection..objects).step_by(usize::try_from(CONNECTIONS).unwrap_or(1));
                write(server, bucket, numbers)
            })
        };
        let running: Vec<_> = (0..CONNECTIONS).map(work).collect();
        let panicked = |_| Err(Failure::new("a writer panicked"));
        running.into_iter().try_for_each(|one| one.join().unwrap_or_else(panicked))
    })
}

fn write(server: SocketAddr, bucket: &str, numbers: impl Iterator<Item = u64>) -> Outcome {
    let mut stream = TcpStream::connect(server).context(server)?;
    stream.set_nodelay(true).context(server)?;
    let mut from = BufReader::new(stream.try_clone().context(server)?);
    for number in numbers {
        let text = format!(
            "PUT /{bucket}/{PREFIX}{number:08} HTTP/1.1\r\nHost: {server}\r\nContent-Length: 0\r\n\r\n"
        );
        stream.write_all(text.as_bytes()).context(server)?;
        let (mut first, mut length) = (String::new(), 0);
        from.read_line(&mut first).context(server)?;
        loop {
            let mut line = String::new();
            from.read_line(&mut line).context(server)?;
            let (name, value) = line.split_once(':').unwrap_or_default();
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().context("Content-Length")?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        from.read_exact(&mut body).context(server)?;
        ensure(first.contains(" 200 "), || {
            format!("object {number}: {} {}", first.trim(), String::from_utf8_lossy(&body))
        })?;
    }
    Ok(())
}
