// SPDX-License-Identifier: Apache-2.0
//! Two authorities, and certificates of servers and clients, made by openssl. Each client has a directory as GnuTLS
//! programs want it: `ca-cert.pem`, `client-cert.pem`, `client-key.pem`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    failure::{Context, Outcome},
    program::Program,
};

/// Certificates in a directory of their own.
pub struct Certificates {
    directory: PathBuf,
}

const AUTHORITY: &[&str] = &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"];
const SERVER: &[&str] = &[
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature,keyEncipherment",
    "extendedKeyUsage=serverAuth",
    "subjectAltName=IP:127.0.0.1,DNS:localhost",
];

impl Certificates {
    /// Makes them: the authorities `trusted` and `foreign`; a server's by the first; and the clients
    ///
    /// | client | believes | shows |
    /// |---|---|---|
    /// | `nobody` | `trusted` | nothing |
    /// | `alice`, `bob` | `trusted` | one by `trusted`, for `NAME.example.org` |
    /// | `mallory` | both, for QEMU shows no certificate whose authority it does not believe | one by `foreign`, for `alice.example.org` |
    /// | `stranger` | `foreign` | one by `foreign`, for `alice.example.org` |
    ///
    /// # Errors
    /// When openssl fails.
    pub fn make(directory: &Path) -> Outcome<Self> {
        fs::create_dir(directory).context(directory.display())?;
        let made = Self { directory: directory.to_owned() };
        for authority in ["trusted", "foreign"] {
            made.issue(None, authority, authority, AUTHORITY)?;
        }
        made.issue(Some("trusted"), "server", "server", SERVER)?;
        for (client, believes, by, name) in [
            ("nobody", &["trusted"][..], None, ""),
            ("alice", &["trusted"], Some("trusted"), "alice"),
            ("bob", &["trusted"], Some("trusted"), "bob"),
            ("mallory", &["trusted", "foreign"], Some("foreign"), "alice"),
            ("stranger", &["foreign"], Some("foreign"), "alice"),
        ] {
            let home = made.client(client);
            fs::create_dir(&home).context(home.display())?;
            let mut authorities = String::new();
            for authority in believes {
                let file = made.file(&format!("{authority}-cert.pem"));
                authorities += &fs::read_to_string(&file).context(file.display())?;
            }
            fs::write(home.join("ca-cert.pem"), authorities).context(client)?;
            if by.is_some() {
                let alternative = format!("subjectAltName=DNS:{name}.example.org");
                let extensions =
                    [SERVER[0], SERVER[1], "extendedKeyUsage=clientAuth", &alternative];
                made.issue(by, &format!("{client}/client"), name, &extensions)?;
            }
        }
        Ok(made)
    }

    fn issue(&self, by: Option<&str>, file: &str, name: &str, extensions: &[&str]) -> Outcome {
        let mut program = Program::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "30", "-subj", &format!("/CN={name}"), "-keyout"])
            .arg(self.file(&format!("{file}-key.pem")))
            .arg("-out")
            .arg(self.file(&format!("{file}-cert.pem")));
        if let Some(by) = by {
            program = program.arg("-CA").arg(self.file(&format!("{by}-cert.pem")));
            program = program.arg("-CAkey").arg(self.file(&format!("{by}-key.pem")));
        }
        for extension in extensions {
            program = program.args(["-addext", extension]);
        }
        program.run().map(drop)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The directory of a client.
    pub fn client(&self, name: &str) -> PathBuf {
        self.file(name)
    }

    /// The SHA-256 of a client's certificate in its binary form, in hexadecimal digits.
    ///
    /// # Errors
    /// When openssl fails.
    pub fn fingerprint(&self, client: &str) -> Outcome<String> {
        let certificate = self.client(client).join("client-cert.pem");
        let options = ["x509", "-noout", "-fingerprint", "-sha256", "-in"];
        let said = Program::new("openssl").args(options).arg(certificate).run()?;
        let hex = said.stdout.trim().rsplit('=').next().unwrap_or_default();
        Ok(hex.replace(':', "").to_lowercase())
    }

    /// The keys of a host's section `nbd` that make it a server on this address, with `more`.
    pub fn listen(&self, address: &str, more: &str) -> String {
        let path = |name: &str| format!("{:?}", self.file(name).display().to_string());
        format!(
            "listen = [\"{address}\"]\ntls_certificate = {}\ntls_key = {}\n{more}\n",
            path("server-cert.pem"),
            path("server-key.pem"),
        )
    }

    /// The key of the section `nbd` that names the authority of clients.
    pub fn client_authority(&self) -> String {
        format!("tls_client_ca = {:?}\n", self.file("trusted-cert.pem").display().to_string())
    }
}

/// An address of this machine that nobody listens on; it stays the same when a host starts again.
///
/// # Errors
/// When there is none.
pub fn free_address() -> Outcome<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("a free port")?;
    Ok(listener.local_addr().context("a free port")?.to_string())
}
