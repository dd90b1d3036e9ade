// SPDX-License-Identifier: Apache-2.0
//! A wire between a client and a server that can be cut: cleanly, as a server ends a connection, or in the middle of a
//! message, as a broken network does.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rustix::net::sockopt;

use crate::failure::{Context, Outcome};

/// How often a silent connection is asked whether it is to be cut.
const LOOK: Duration = Duration::from_millis(10);
const CHUNK: usize = 64 << 10;
/// What of a message still arrives when the wire is cut in its middle.
const STUMP: usize = 100;

/// What was done to the wire, counted, so that connections know what is new to them.
#[derive(Default)]
struct Cuts {
    clean: AtomicU64,
    reset: AtomicU64,
    connections: AtomicU64,
}

/// The wire. It ends with the process.
pub struct Wire {
    port: u16,
    cuts: Arc<Cuts>,
}

impl Wire {
    /// A wire to this server.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn to(server: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the wire's port")?;
        let port = listener.local_addr().context("the wire's port")?.port();
        let cuts = Arc::<Cuts>::default();
        let shared = Arc::clone(&cuts);
        thread::spawn(move || {
            for client in listener.incoming() {
                // Without a server there is no connection, which is what the client sees.
                let _ = client.and_then(|client| connect(client, server, &shared));
            }
        });
        Ok(Self { port, cuts })
    }

    /// Where it begins.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections it had.
    pub fn connections(&self) -> u64 {
        self.cuts.connections.load(Ordering::SeqCst)
    }

    /// Ends all connections cleanly, between whatever messages there are.
    pub fn close(&self) {
        self.cuts.clean.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends all connections in the middle of the next message in either direction, by a reset.
    pub fn reset(&self) {
        self.cuts.reset.fetch_add(1, Ordering::SeqCst);
    }
}

fn connect(client: TcpStream, server: SocketAddr, cuts: &Arc<Cuts>) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    cuts.connections.fetch_add(1, Ordering::SeqCst);
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK))?;
    }
    let seen = || (cuts.clean.load(Ordering::SeqCst), cuts.reset.load(Ordering::SeqCst));
    let (born, reset) = (seen(), Arc::<AtomicBool>::default());
    for (from, to) in
        [(client.try_clone()?, server.try_clone()?), (server.try_clone()?, client.try_clone()?)]
    {
        let (cuts, reset) = (Arc::clone(cuts), Arc::clone(&reset));
        thread::spawn(move || carry(from, to, &cuts, born, &reset));
    }
    Ok(())
}

/// One direction, until it ends or is cut; the other one ends with it. A reset is what the kernel sends when the last of both
/// lets go.
fn carry(
    mut from: TcpStream,
    mut to: TcpStream,
    cuts: &Cuts,
    born: (u64, u64),
    is_reset: &AtomicBool,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let len = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                0
            }
            Err(_) => break,
        };
        if is_reset.load(Ordering::SeqCst) {
            return;
        }
        if cuts.clean.load(Ordering::SeqCst) > born.0 {
            break;
        }
        if cuts.reset.load(Ordering::SeqCst) > born.1 && len > 0 {
            // An error here means that it is cut already.
            let _ = to.write_all(&chunk[..len.min(STUMP)]);
            thread::sleep(Duration::from_millis(2));
            for stream in [&from, &to] {
                let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            }
            is_reset.store(true, Ordering::SeqCst);
            return;
        }
        if to.write_all(&chunk[..len]).is_err() {
            break;
        }
    }
    for stream in [&from, &to] {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use super::Wire;

    fn echo() -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            for from in listener.incoming() {
                let mut from = from.unwrap();
                let mut to = from.try_clone().unwrap();
                thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        });
        Wire::to(server).unwrap()
    }

    fn client(wire: &Wire) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", wire.port())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&[1; 1000]).unwrap();
        let mut back = [0; 1000];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, [1; 1000]);
        stream
    }

    #[test]
    fn it_is_cut_cleanly() {
        let wire = echo();
        let mut stream = client(&wire);
        wire.close();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
        drop(client(&wire));
        assert_eq!(wire.connections(), 2);
    }

    #[test]
    fn it_is_cut_in_the_middle_of_a_message() {
        let wire = echo();
        let mut stream = client(&wire);
        wire.reset();
        stream.write_all(&[2; 1000]).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(rest.len() < 1000);
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::ConnectionReset);
        drop(client(&wire));
    }
}
