// SPDX-License-Identifier: Apache-2.0
//! One connection of somebody who asks, and what becomes of each request.

use std::{
    io::{self, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::net::sockopt;

use super::{
    Fault, Shared,
    message::{Body, Forgiving, Head, Paced, Step, carry},
};

/// How long either side may be silent.
const SILENCE: Duration = Duration::from_secs(120);
/// How often a connection that is held is asked whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection is held at most.
const HELD: Duration = Duration::from_secs(120);

/// Whether the connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    End,
}

struct Talk<'s> {
    shared: &'s Shared,
    client: TcpStream,
    from_client: BufReader<TcpStream>,
}

/// Serves somebody who asks, until their connection ends.
pub(super) fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(SILENCE))?;
    client.set_write_timeout(Some(SILENCE))?;
    let from_client = BufReader::with_capacity(64 << 10, client.try_clone()?);
    let mut talk = Talk { shared, client, from_client };
    while !shared.is_over() {
        let Some(request) = Head::read(&mut talk.from_client)? else { break };
        if talk.request(&request)? == Next::End {
            break;
        }
    }
    Ok(())
}

fn pass(counter: &AtomicU64, bytes: usize) -> Step {
    counter.fetch_add(bytes as u64, Ordering::Relaxed);
    Step::On
}

/// What of a piece goes on when a body stops after `limit` bytes.
fn first_of(limit: u64, at: u64, piece: &[u8]) -> Option<usize> {
    let left = limit.saturating_sub(at);
    (left <= piece.len() as u64).then(|| usize::try_from(left).unwrap_or(usize::MAX))
}

impl Talk<'_> {
    fn request(&mut self, request: &Head) -> io::Result<Next> {
        let (method, target) = (request.word(0), request.word(1));
        let fault = self.shared.fault(method, target);
        if request.waits() && !matches!(fault, Some(Fault::BlackHole)) {
            self.client.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let said = match &fault {
            None => String::new(),
            Some(fault) => format!(" <- {}", fault.name()),
        };
        let answered = self.answer(request, fault);
        let told = match &answered {
            Ok((status, _)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.shared.remember(format!("{method} {target} {told}{said}"));
        let (_, next) = answered?;
        Ok(if request.closes() { Next::End } else { next })
    }

    /// The status that the server behind gave, or was put in its place, and what comes next.
    fn answer(&mut self, request: &Head, fault: Option<Fault>) -> io::Result<(u16, Next)> {
        match fault {
            Some(Fault::Answer { status, retry_after }) => {
                self.swallow(request)?;
                self.say(status, retry_after)?;
                Ok((status, Next::Request))
            }
            Some(Fault::Meanwhile(act)) => {
                self.swallow(request)?;
                act();
                self.say(500, None)?;
                Ok((500, Next::Request))
            }
            Some(Fault::BlackHole) => {
                // Some of the body may be on its way: it is read, as a machine does whose programs stand still.
                self.hold(None);
                Ok((0, Next::End))
            }
            Some(Fault::Delay(time)) => {
                thread::sleep(time);
                self.forward(request, None)
            }
            fault => self.forward(request, fault),
        }
    }

    /// Reads the body of a request, which goes nowhere.
    fn swallow(&mut self, request: &Head) -> io::Result<()> {
        carry(&mut self.from_client, &mut io::sink(), request.request_body(), |_, _| Step::On)?;
        Ok(())
    }

    /// An answer of our own, as stores word theirs.
    fn say(&mut self, status: u16, retry_after: Option<u32>) -> io::Result<()> {
        let (code, words) = match status {
            429 => ("TooManyRequests", "Too Many Requests"),
            503 => ("SlowDown", "Service Unavailable"),
            _ => ("InternalError", "Internal Server Error"),
        };
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{words}</Message></Error>"
        );
        let retry = retry_after.map(|secs| format!("Retry-After: {secs}\r\n")).unwrap_or_default();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} {words}\r\nContent-Type: application/xml\r\n{retry}Content-Length: {length}\r\n\r\n"
        );
        self.client.write_all((head + &body).as_bytes())
    }

    /// Keeps the connection open and silent until the other side lets go.
    fn hold(&mut self, behind: Option<&TcpStream>) {
        let until = Instant::now() + HELD;
        let mut rest = [0; 4096];
        // A connection that cannot be waited for has ended.
        let waits = self.client.set_read_timeout(Some(LOOK)).is_ok();
        while waits && Instant::now() < until && !self.shared.is_over() {
            match self.from_client.read(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
        drop(behind.map(|stream| stream.shutdown(std::net::Shutdown::Both)));
    }

    fn forward(&mut self, request: &Head, fault: Option<Fault>) -> io::Result<(u16, Next)> {
        let behind = match TcpStream::connect(self.shared.behind) {
            Ok(behind) => behind,
            // What one sees of a server that is gone.
            Err(error) => return self.reset(None).and(Err(error)),
        };
        behind.set_nodelay(true)?;
        behind.set_read_timeout(Some(SILENCE))?;
        behind.set_write_timeout(Some(SILENCE))?;
        let mut behind = Forgiving::new(behind);
        behind.write_all(&request.bytes)?;
        let stop = match fault {
            Some(Fault::HalfOpen { after } | Fault::Reset { after }) => Some(after),
            _ => None,
        };
        let up = &self.shared.up;
        let whole = carry(
            &mut self.from_client,
            &mut behind,
            request.request_body(),
            |at, piece| match stop.and_then(|after| first_of(after, at, piece)) {
                Some(first) => Step::Stop(first),
                None => pass(up, piece.len()),
            },
        )?;
        if !whole {
            return if matches!(fault, Some(Fault::Reset { .. })) {
                self.reset(Some(&behind.to))
            } else {
                self.hold(Some(&behind.to));
                Ok((0, Next::End))
            };
        }
        self.back(request, behind.to, fault)
    }

    /// The answer's way back.
    fn back(
        &mut self,
        request: &Head,
        behind: TcpStream,
        fault: Option<Fault>,
    ) -> io::Result<(u16, Next)> {
        let method = request.word(0);
        let mut from_behind = BufReader::with_capacity(64 << 10, behind);
        let answer = loop {
            let answer = Head::read(&mut from_behind)?.ok_or(ErrorKind::UnexpectedEof)?;
            // The word to go on was given here already.
            if answer.status() != 100 {
                break answer;
            }
        };
        let (status, body) = (answer.status(), answer.answer_body(method));
        if let Some(Fault::LoseAnswer | Fault::FalseStatus(_)) = fault {
            carry(&mut from_behind, &mut io::sink(), body, |_, _| Step::On)?;
            let Some(Fault::FalseStatus(told)) = fault else { return Ok((status, Next::End)) };
            self.say(told, None)?;
            return Ok((status, Next::Request));
        }
        self.client.write_all(&answer.bytes)?;
        let down = &self.shared.down;
        let pace = match fault {
            Some(Fault::Drip { bytes, every }) => Some((bytes, every)),
            _ => None,
        };
        let mut paced = Paced { to: &self.client, pace };
        let whole = carry(&mut from_behind, &mut paced, body, |at, piece| {
            match &fault {
                Some(Fault::Truncate { after } | Fault::Stall { after }) => {
                    if let Some(first) = first_of(*after, at, piece) {
                        return Step::Stop(first);
                    }
                }
                Some(Fault::Corrupt { at: place }) => {
                    let place = place.checked_sub(at).and_then(|place| usize::try_from(place).ok());
                    if let Some(byte) = place.and_then(|place| piece.get_mut(place)) {
                        *byte = !*byte;
                    }
                }
                _ => {}
            }
            pass(down, piece.len())
        });
        match whole {
            Ok(true) if body == Body::Connection || answer.closes() => Ok((status, Next::End)),
            Ok(true) => Ok((status, Next::Request)),
            Ok(false) if matches!(fault, Some(Fault::Stall { .. })) => {
                self.hold(Some(from_behind.get_ref()));
                Ok((status, Next::End))
            }
            Ok(false) => Ok((status, Next::End)),
            Err(error) => Err(error),
        }
    }

    /// Has the kernel send a reset on both connections when they are let go.
    fn reset(&mut self, behind: Option<&TcpStream>) -> io::Result<(u16, Next)> {
        for stream in [Some(&self.client), behind].into_iter().flatten() {
            sockopt::set_socket_linger(stream, Some(Duration::ZERO))?;
        }
        Ok((0, Next::End))
    }
}
