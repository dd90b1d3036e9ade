// SPDX-License-Identifier: Apache-2.0
//! The server's certificate and whom it trusts, read from files that may be renewed while it serves.

use std::{
    fs,
    io::Read,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use driver_api::{Error, ErrorKind, Result};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use sha2::{Digest, Sha256};

use crate::access::Certificate;

/// No file of certificates is longer.
const LARGEST: u64 = 1 << 20;

/// Whether clients show certificates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientCertificates {
    /// They are not asked.
    None,
    /// They may; one that is shown must be good.
    Offer,
    /// Who has none is refused.
    Require,
}

/// Where certificates and keys are, in PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The server's certificate, and those that lead from it to its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authorities of clients' certificates.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show certificates.
    pub clients: ClientCertificates,
}

/// What TLS connections begin with; renewed files count for the next one.
pub struct TlsKeys {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// What the files were when they were last read, for better or worse.
    seen: Vec<Option<Stamp>>,
}

/// Changes whenever a file's content may have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl TlsKeys {
    /// Reads the files.
    pub fn load(files: TlsFiles) -> Result<Self> {
        let seen = stamps(&files);
        let config = read(&files)?;
        Ok(Self { files, current: Mutex::new(Current { config, seen }) })
    }

    /// What the next connection begins with. Files that cannot be used are logged once, and leave all as it was.
    pub fn config(&self) -> Arc<ServerConfig> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = stamps(&self.files);
        if seen != current.seen {
            // Taken before they are read: what is written meanwhile is read the next time.
            current.seen = seen;
            match read(&self.files) {
                Ok(config) => {
                    tracing::info!(
                        certificate = %self.files.certificate.display(),
                        "renewed certificates are in use"
                    );
                    current.config = config;
                }
                Err(error) => tracing::error!(
                    remedy = error.remedy_text(),
                    "the renewed certificates cannot be used, those before stay: {error:#}"
                ),
            }
        }
        Arc::clone(&current.config)
    }
}

fn stamps(files: &TlsFiles) -> Vec<Option<Stamp>> {
    let stamp = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    };
    [&files.certificate, &files.key].into_iter().chain(&files.client_ca).map(stamp).collect()
}

fn refuse(what: &str, why: impl std::fmt::Display, file: &Path) -> Error {
    Error::new(ErrorKind::INVALID_ARGUMENT, format!("{what} cannot be used: {why}"))
        .with("file", file.display())
}

fn read(files: &TlsFiles) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(ring::default_provider());
    let (what, file) = ("the NBD server's certificate", &*files.certificate);
    let chain = certificates(what, file)?;
    let key = key(&files.key)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| refuse("TLS", error, file))?;
    let builder = match (&files.client_ca, files.clients) {
        (Some(authorities), ClientCertificates::Offer | ClientCertificates::Require) => {
            let what = "the authority of NBD clients' certificates";
            let mut roots = RootCertStore::empty();
            for certificate in certificates(what, authorities)? {
                roots.add(certificate).map_err(|error| refuse(what, error, authorities))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match files.clients {
                ClientCertificates::Offer => verifier.allow_unauthenticated(),
                _ => verifier,
            };
            let verifier = verifier.build().map_err(|error| refuse(what, error, authorities))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => refuse(what, "it is not the key's", file)
            .with("key", files.key.display())
            .remedy("name the certificate that was issued for this key, before its authorities'"),
        error => refuse(what, error, file).remedy("use an RSA, ECDSA or Ed25519 key"),
    })?;
    // A connection lives long. What is resumed would also keep rights that the files gave when it began.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(what: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let remedy = "name a PEM file with a block that begins with -----BEGIN CERTIFICATE-----";
    let (text, _) = contents(what, file)?;
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match all {
        Ok(all) if all.is_empty() => {
            Err(refuse(what, "there is no certificate in the file", file).remedy(remedy))
        }
        Ok(all) => Ok(all),
        Err(error) => Err(refuse(what, error, file).remedy(remedy)),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>> {
    let what = "the key of the NBD server's certificate";
    let (text, mode) = contents(what, file)?;
    if mode & 0o006 != 0 {
        let place = file.display();
        let why = format!("others may read or write it (mode {:04o})", mode & 0o7777);
        return Err(refuse(what, why, file).remedy(format!(
            "run `chmod o-rwx {place}`, and make a new key if others could have read it"
        )));
    }
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        refuse(what, error, file)
            .remedy("name a PEM file with an unencrypted private key, such as openssl makes")
    })
}

/// A file's bytes and mode.
fn contents(what: &str, file: &Path) -> Result<(Vec<u8>, u32)> {
    let failed = |error: std::io::Error| {
        Error::from_io(format!("{what} cannot be read: {error}"), &error)
            .with("file", file.display())
            .remedy("put it there, readable for this process")
    };
    // Not blocking: a pipe without a writer would hold the host.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let open = fs::File::options().read(true).custom_flags(nonblocking).open(file);
    let open = open.map_err(failed)?;
    let metadata = open.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > LARGEST {
        return Err(
            refuse(what, "it is no regular file of at most 1 MiB", file).remedy("name a PEM file")
        );
    }
    let mut bytes = Vec::new();
    open.take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, metadata.mode()))
}

/// What rules can name of a certificate.
pub(super) fn identity(certificate: &CertificateDer<'_>) -> Certificate {
    // A certificate that was verified can be parsed; one that cannot has no names.
    let dns_names = webpki::EndEntityCert::try_from(certificate)
        .map(|parsed| parsed.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default();
    Certificate { dns_names, sha256: Sha256::digest(certificate).into() }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
pub(super) mod tests;
