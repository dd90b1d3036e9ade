// SPDX-License-Identifier: Apache-2.0

use std::{
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    thread,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{PrivateKeyDer, pem::PemObject},
};

use super::{
    super::tls::{ClientCertificates, TlsKeys, identity, tests::Authority},
    *,
};

type Client = StreamOwned<ClientConnection, UnixStream>;

fn client(at: &Authority, socket: UnixStream, shows: Option<&str>) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(at.path("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        Some(name) => {
            let chain = CertificateDer::from_pem_file(at.path(&format!("{name}.pem"))).unwrap();
            let key = PrivateKeyDer::from_pem_file(at.path(&format!("{name}.key"))).unwrap();
            config.with_client_auth_cert(vec![chain], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let session = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(session, socket)
}

fn wait(socket: BorrowedFd<'_>, events: rustix::event::PollFlags) {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(socket, events)];
    rustix::event::poll(&mut fds, None).unwrap();
}

fn shake_hands(transport: &mut Transport<'_>) -> Result<()> {
    use rustix::event::PollFlags;
    loop {
        match transport.handshake()? {
            Handshake::Done => return Ok(()),
            Handshake::Readable => wait(transport.socket, PollFlags::IN),
            Handshake::Writable => wait(transport.socket, PollFlags::OUT),
        }
    }
}

/// Runs both ends; gives what the server's made of it.
fn between<T: Send>(
    clients: ClientCertificates,
    shows: Option<&str>,
    there: impl FnOnce(Client) + Send,
    here: impl FnOnce(&mut Transport<'_>) -> T,
) -> T {
    let at = Authority::new();
    at.issue("server", "localhost");
    at.issue("client", "vm1.example.org");
    let stranger = Authority::new();
    stranger.issue("client", "vm1.example.org");
    for end in ["client.pem", "client.key"] {
        let copy = at.path(&format!("stranger{}", &end[6..]));
        std::fs::copy(stranger.path(end), copy).unwrap();
    }
    let keys = TlsKeys::load(at.files("server", clients)).unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| there(client(&at, far, shows)));
        let mut transport = Transport::new(near.as_fd());
        transport.start_tls(keys.config()).unwrap();
        let result = here(&mut transport);
        near.shutdown(Shutdown::Both).unwrap();
        result
    })
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8)) as u8).collect()
}

#[test]
fn bytes_arrive_as_they_were_sent_whatever_the_spaces() {
    const LEN: usize = 3_000_000;
    let there = |mut client: Client| {
        client.write_all(&pattern(LEN)).unwrap();
        client.flush().unwrap();
        let mut back = vec![0; LEN];
        client.read_exact(&mut back).unwrap();
        assert!(back == pattern(LEN), "what came back differs");
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the good-bye, not a cut");
    };
    between(ClientCertificates::None, None, there, |transport| {
        shake_hands(transport).unwrap();
        assert_eq!(transport.client_certificate(), None);
        let (mut got, mut sizes) = (Vec::new(), [1, 7, 4096, 100_000, 300_000].iter().cycle());
        while got.len() < LEN {
            let (mut first, mut second) = (vec![0; *sizes.next().unwrap()], vec![0; 5000]);
            let mut spaces = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut second)];
            let count = transport.receive(&mut spaces, RecvFlags::empty()).unwrap();
            assert!(count > 0);
            first.extend(second);
            got.extend(&first[..count]);
        }
        assert!(got == pattern(LEN), "what arrived differs");
        let mut sent = 0;
        while sent < LEN {
            let rest = &got[sent..];
            let (head, tail) = rest.split_at(rest.len().min(16));
            match transport.send(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => {
                    wait(transport.socket, rustix::event::PollFlags::OUT);
                }
                Err(errno) => panic!("{errno}"),
            }
        }
        transport.finish();
    });
}

#[test]
fn what_poll_cannot_see_is_told() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let there = move |mut client: Client| {
        client.write_all(&[5; 10]).unwrap();
        told.recv().unwrap();
        client.conn.send_close_notify();
        client.flush().unwrap();
    };
    between(ClientCertificates::None, None, there, |transport| {
        shake_hands(transport).unwrap();
        let mut one = [0; 1];
        let mut spaces = [IoSliceMut::new(&mut one)];
        assert_eq!(transport.receive(&mut spaces, RecvFlags::empty()), Ok(1));
        assert!(transport.has_buffered(), "nine are left");
        let mut many = [0; 100];
        let mut spaces = [IoSliceMut::new(&mut many)];
        assert_eq!(transport.receive(&mut spaces, RecvFlags::DONTWAIT), Ok(9));
        assert!(!transport.has_buffered());
        let mut spaces = [IoSliceMut::new(&mut many)];
        assert_eq!(transport.receive(&mut spaces, RecvFlags::DONTWAIT), Err(Errno::AGAIN));
        tell.send(()).unwrap();
        let mut spaces = [IoSliceMut::new(&mut many)];
        assert_eq!(transport.receive(&mut spaces, RecvFlags::empty()), Ok(0), "its good-bye");
        assert!(!transport.has_buffered());
    });
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let there = |mut client: Client| {
        client.flush().unwrap();
        let _ = client.read(&mut [0; 1]);
    };
    let certificate = between(ClientCertificates::Require, Some("client"), there, |transport| {
        shake_hands(transport).unwrap();
        transport.client_certificate().map(identity)
    });
    assert_eq!(certificate.unwrap().dns_names, ["vm1.example.org"]);
}

#[test]
fn who_shows_no_certificate_or_a_strangers_is_refused_where_one_is_required() {
    for (clients, shows, good) in [
        (ClientCertificates::Require, None, false),
        (ClientCertificates::Require, Some("stranger"), false),
        (ClientCertificates::Offer, None, true),
        (ClientCertificates::Offer, Some("stranger"), false),
        (ClientCertificates::Offer, Some("client"), true),
        (ClientCertificates::None, Some("stranger"), true),
    ] {
        let there = |mut client: Client| {
            let _ = client.flush();
            let _ = client.read(&mut [0; 1]);
        };
        let result = between(clients, shows, there, shake_hands);
        assert_eq!(result.is_ok(), good, "{clients:?} {shows:?} {result:?}");
    }
}

#[test]
fn what_is_no_tls_ends_the_handshake() {
    let there = |client: Client| {
        let mut socket = client.sock;
        socket.write_all(b"IHAVEOPT\0\0\0\x07\0\0\0\0").unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    };
    let error = between(ClientCertificates::None, None, there, shake_hands).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UNAUTHENTICATED, "{error:#}");
    let error = between(ClientCertificates::None, None, drop, shake_hands).unwrap_err();
    assert!(error.message().contains("left"), "{error:#}");
}
