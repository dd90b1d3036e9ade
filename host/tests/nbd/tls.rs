// SPDX-License-Identifier: Apache-2.0
//! TLS, over TCP and the unix socket, with the clients that people use and with hostile ones.

use std::{fs, io::Read, os::unix::fs::PermissionsExt, path::PathBuf, process::Command, sync::Arc};

use novastor::export::nbd::{
    ClientCertificates, ListenAddress, Listener, Server, Tls, TlsFiles, TlsKeys, TlsSettings, serve,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{
    Serving,
    client::*,
    pattern,
    real_clients::run,
    serving_with, settings,
    volume::{Exports, TestVolume},
};

const ERR_POLICY: u32 = (1 << 31) + 2;
const ERR_INVALID: u32 = (1 << 31) + 3;
const ERR_TLS_REQD: u32 = (1 << 31) + 5;
const STARTTLS: u32 = 5;

/// Certificates in the directories that libnbd and QEMU look into.
struct Certificates {
    room: tempfile::TempDir,
}

impl Certificates {
    /// Two authorities with a client each; the server trusts `good`.
    fn new() -> Self {
        let new = Self { room: tempfile::tempdir().unwrap() };
        for authority in ["good", "bad"] {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let key = KeyPair::generate().unwrap();
            let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
            for (end, name, usage) in [
                ("server", "localhost", ExtendedKeyUsagePurpose::ServerAuth),
                ("client", "vm1.example.org", ExtendedKeyUsagePurpose::ClientAuth),
            ] {
                let key = KeyPair::generate().unwrap();
                let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
                params.extended_key_usages = vec![usage];
                // QEMU asks for key encipherment, too.
                params.key_usages =
                    vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
                let certificate = params.signed_by(&key, &issuer).unwrap();
                new.write(authority, &format!("{end}-cert.pem"), &certificate.pem());
                new.write(authority, &format!("{end}-key.pem"), &key.serialize_pem());
            }
            new.write(authority, "ca-cert.pem", &issuer.pem());
        }
        // A client that trusts the right server, and has nothing to show or what no authority here has issued.
        new.write("bare", "ca-cert.pem", &new.read("good/ca-cert.pem"));
        for file in ["client-cert.pem", "client-key.pem"] {
            new.write("stranger", file, &new.read(&format!("bad/{file}")));
        }
        new.write("stranger", "ca-cert.pem", &new.read("good/ca-cert.pem"));
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    fn write(&self, directory: &str, name: &str, text: &str) {
        let directory = self.path(directory);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(directory.join(name), private).unwrap();
    }

    fn settings(&self, mode: Tls, clients: ClientCertificates) -> TlsSettings {
        let keys = TlsKeys::load(TlsFiles {
            certificate: self.path("good/server-cert.pem"),
            key: self.path("good/server-key.pem"),
            client_ca: Some(self.path("good/ca-cert.pem")),
            clients,
        });
        TlsSettings { keys: Some(Arc::new(keys.unwrap())), unix: mode, tcp: mode }
    }
}

/// A server on a port of this machine.
struct OverTcp {
    _server: Server,
    port: u16,
    certificates: Certificates,
}

impl OverTcp {
    fn new(volume: &TestVolume, mode: Tls, clients: ClientCertificates) -> Self {
        let certificates = Certificates::new();
        let mut settings = settings();
        settings.tls = certificates.settings(mode, clients);
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let exports = Arc::new(Exports(vec![("disk", volume.clone())]));
        let server = serve(settings, vec![listener], exports).unwrap();
        let ListenAddress::Tcp(address) = server.addresses()[0].clone() else { panic!("no port") };
        Self { _server: server, port: address.port(), certificates }
    }

    fn uri(&self, scheme: &str, shows: &str) -> String {
        let directory = self.certificates.path(shows).display().to_string();
        let port = self.port;
        match scheme {
            "nbd" => format!("nbd://localhost:{port}/disk"),
            _ => format!("{scheme}://localhost:{port}/disk?tls-certificates={directory}"),
        }
    }

    /// Whether nbdinfo gets the size, and what it says.
    fn admits(&self, scheme: &str, shows: &str) -> bool {
        let output = Command::new("nbdinfo").args(["--size", &self.uri(scheme, shows)]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let size = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(output.status.success(), size == (8 << 20).to_string(), "{size} {text}");
        output.status.success()
    }
}

#[test]
fn nbdinfo_gets_in_with_what_the_mode_asks_for() {
    use ClientCertificates::{None, Offer, Require};
    let volume = TestVolume::new(8 << 20);
    for (mode, clients, who) in [
        (Tls::Require, None, ["nbds bare", "nbds good", "nbds stranger"].as_slice()),
        (Tls::Require, Offer, &["nbds bare", "nbds good"]),
        (Tls::Require, Require, &["nbds good"]),
        (Tls::Offer, Require, &["nbds good", "nbd bare"]),
        (Tls::Off, None, &["nbd bare"]),
    ] {
        let at = OverTcp::new(&volume, mode, clients);
        for client in ["nbds bare", "nbds good", "nbds stranger", "nbds bad", "nbd bare"] {
            let (scheme, shows) = client.split_once(' ').unwrap();
            let admitted = at.admits(scheme, shows);
            assert_eq!(admitted, who.contains(&client), "{mode:?} {clients:?} {client}");
        }
    }
}

#[test]
fn images_go_in_and_out_over_tls() {
    let volume = TestVolume::new(8 << 20);
    let at = OverTcp::new(&volume, Tls::Require, ClientCertificates::Require);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let image = pattern(8 << 20, 5);
    fs::write(path("in.raw"), &image).unwrap();
    let uri = at.uri("nbds", "good");
    run("nbdcopy", &[&path("in.raw"), &uri]);
    assert!(volume.data() == image, "what nbdcopy wrote differs");
    run("nbdcopy", &[&uri, &path("out.raw")]);
    assert!(fs::read(path("out.raw")).unwrap() == image, "what nbdcopy read differs");
    let credentials = format!(
        "tls-creds-x509,id=tls,endpoint=client,dir={}",
        at.certificates.path("good").display()
    );
    let export = format!("driver=nbd,host=localhost,port={},export=disk,tls-creds=tls", at.port);
    run(
        "qemu-img",
        &[
            "convert",
            "--object",
            &credentials,
            "--image-opts",
            &export,
            "-O",
            "raw",
            &path("qemu.raw"),
        ],
    );
    assert!(fs::read(path("qemu.raw")).unwrap() == image, "what qemu-img read differs");
}

fn over_unix(mode: Tls) -> (Serving, Certificates) {
    let certificates = Certificates::new();
    let volume = TestVolume::new(8 << 20);
    let at = serving_with(vec![("disk", volume)], |settings| {
        settings.tls = certificates.settings(mode, ClientCertificates::None);
    });
    (at, certificates)
}

#[test]
fn the_unix_socket_has_tls_for_who_asks() {
    let (at, certificates) = over_unix(Tls::Offer);
    let uri = format!(
        "nbds+unix://localhost/disk?socket={}&tls-certificates={}&tls-hostname=localhost",
        at.socket.display(),
        certificates.path("bare").display()
    );
    let text = run("nbdinfo", &["--json", &uri]);
    assert!(text.contains("\"TLS\": true"), "{text}");
    assert_eq!(Client::go(&at.socket, "disk").read(0, 1), [0]);
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before() {
    let (at, _certificates) = over_unix(Tls::Require);
    let mut client = Client::greet(&at.socket, 3);
    for (code, data) in [(3, vec![]), (6, info_data("disk", &[])), (7, info_data("disk", &[3]))] {
        let answers = client.ask(code, &data);
        assert_eq!((answers.len(), answers[0].kind), (1, ERR_TLS_REQD), "option {code}");
    }
    assert_eq!(client.ask(8, &[])[0].kind, ERR_TLS_REQD);
    assert_eq!(client.ask(STARTTLS, b"x")[0].kind, ERR_INVALID);
    assert_eq!(client.ask(2, &[])[0].kind, 1, "leaving is always possible");
    let mut old = Client::greet(&at.socket, 3);
    old.send_option(1, b"disk");
    assert!(old.is_closed(), "this way knows no refusal");
    let (at, _certificates) = over_unix(Tls::Off);
    assert_eq!(Client::greet(&at.socket, 3).ask(STARTTLS, &[])[0].kind, ERR_POLICY);
}

#[test]
fn plain_text_behind_starttls_is_not_taken_for_the_clients() {
    let (at, _certificates) = over_unix(Tls::Require);
    let mut client = Client::greet(&at.socket, 3);
    let mut both = b"IHAVEOPT\0\0\0\x05\0\0\0\0".to_vec();
    both.extend(b"IHAVEOPT\0\0\0\x03\0\0\0\0");
    client.send(&both);
    let mut answers = Vec::new();
    let _ = client.socket.read_to_end(&mut answers);
    assert!(answers.is_empty(), "{answers:?}");
    assert!(at.server.connections().is_empty() || client.is_closed());
    // Later, it is no TLS.
    let mut client = Client::greet(&at.socket, 3);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, 1);
    client.send(b"IHAVEOPT\0\0\0\x03\0\0\0\0");
    let mut alert = Vec::new();
    let _ = client.socket.read_to_end(&mut alert);
    assert_eq!(alert.first(), Some(&21), "an alert of TLS, and the end: {alert:?}");
}
