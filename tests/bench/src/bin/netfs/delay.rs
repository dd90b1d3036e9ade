// SPDX-License-Identifier: Apache-2.0
//! A server that is far away: a relay that holds everything back for a while on its way, in either direction, and lets any
//! amount be on the way at once.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use end_to_end::failure::{Context, Outcome};

/// Bytes that are taken at once, at most.
const CHUNK: usize = 256 << 10;

/// The relay. It ends with the process.
pub struct Delay {
    port: u16,
}

impl Delay {
    /// Relays to this server, and holds everything back for so long in either direction.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn before(server: SocketAddr, each_way: Duration) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the relay's port")?;
        let port = listener.local_addr().context("the relay's port")?.port();
        thread::spawn(move || {
            for client in listener.incoming() {
                // Who is not relayed sees that its connection ends.
                let relayed = client.and_then(|client| relay(client, server, each_way));
                if let Err(error) = relayed {
                    eprintln!("the relay to {server}: {error}");
                }
            }
        });
        Ok(Self { port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn relay(client: TcpStream, server: SocketAddr, each_way: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    direct(client.try_clone()?, server.try_clone()?, each_way);
    direct(server, client, each_way);
    Ok(())
}

/// One direction: what comes waits until it is due.
fn direct(mut from: TcpStream, mut to: TcpStream, held_back: Duration) {
    let (taken, due) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        // An end and an error are the same to who is relayed: nothing comes any more.
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            if taken.send((Instant::now() + held_back, chunk[..len].to_vec())).is_err() {
                break;
            }
        }
    });
    thread::spawn(move || {
        for (moment, bytes) in due {
            thread::sleep(moment.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other side may have gone already.
        let _ = to.shutdown(Shutdown::Write);
    });
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::{Duration, Instant},
    };

    use super::Delay;

    /// A connection through a relay to a server that sends everything back.
    fn echo(each_way: Duration) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut from, _) = listener.accept().unwrap();
            let mut to = from.try_clone().unwrap();
            std::io::copy(&mut from, &mut to).unwrap();
        });
        let delay = Delay::before(server, each_way).unwrap();
        TcpStream::connect(("127.0.0.1", delay.port())).unwrap()
    }

    #[test]
    fn a_round_trip_takes_twice_as_long_and_many_at_once_no_longer() {
        let mut stream = echo(Duration::from_millis(50));
        let mut writer = stream.try_clone().unwrap();
        let begun = Instant::now();
        let sending = thread::spawn(move || {
            for _ in 0..32 {
                writer.write_all(&[7; 4096]).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
        });
        let mut back = [0; 4096];
        stream.read_exact(&mut back).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100) && back == [7; 4096]);
        for _ in 1..32 {
            stream.read_exact(&mut back).unwrap();
        }
        // One after the other would take more than three seconds.
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        sending.join().unwrap();
    }

    #[test]
    fn an_end_is_passed_on() {
        let mut stream = echo(Duration::from_millis(1));
        stream.write_all(b"last").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"last");
    }
}
