// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::PermissionsExt;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::*;

/// An authority and a directory for what it issues.
pub(in crate::export::nbd) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(in crate::export::nbd) directory: tempfile::TempDir,
}

impl Authority {
    pub(in crate::export::nbd) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let new = Self { issuer, directory: tempfile::tempdir().unwrap() };
        new.write("ca.pem", &new.issuer.pem());
        new
    }

    pub(in crate::export::nbd) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        // As tools renew files: beside, then in their place.
        let (new, path) = (self.path("new"), self.path(name));
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Writes `NAME.pem` and `NAME.key` for a DNS name.
    pub(in crate::export::nbd) fn issue(&self, name: &str, dns: &str) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![dns.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(&format!("{name}.pem"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    pub(in crate::export::nbd) fn files(
        &self,
        name: &str,
        clients: ClientCertificates,
    ) -> TlsFiles {
        TlsFiles {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
            client_ca: Some(self.path("ca.pem")),
            clients,
        }
    }
}

fn refused(files: TlsFiles) -> Error {
    TlsKeys::load(files).err().unwrap()
}

#[test]
fn files_that_cannot_be_used_are_named_with_reason_and_remedy() {
    let at = Authority::new();
    at.issue("server", "localhost");
    at.issue("other", "localhost");
    let files = |change: &dyn Fn(&mut TlsFiles)| {
        let mut files = at.files("server", ClientCertificates::Require);
        change(&mut files);
        files
    };
    TlsKeys::load(files(&|_| {})).unwrap();
    at.write("garbage.pem", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n");
    at.write("empty.pem", "");
    at.write("open.key", &fs::read_to_string(at.path("server.key")).unwrap());
    fs::set_permissions(at.path("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    type Change = Box<dyn Fn(&mut TlsFiles)>;
    let certificate = |name| -> Change {
        let path = at.path(name);
        Box::new(move |files: &mut TlsFiles| files.certificate.clone_from(&path))
    };
    let key = |name| -> Change {
        let path = at.path(name);
        Box::new(move |files: &mut TlsFiles| files.key.clone_from(&path))
    };
    let authority = |name| -> Change {
        let path = at.path(name);
        Box::new(move |files: &mut TlsFiles| files.client_ca = Some(path.clone()))
    };
    for (change, file, why) in [
        (certificate("missing.pem"), "missing.pem", "No such file"),
        (certificate("empty.pem"), "empty.pem", "no certificate"),
        (certificate("garbage.pem"), "garbage.pem", "cannot be used"),
        (certificate("server.key"), "server.key", "no certificate"),
        (certificate("other.pem"), "other.pem", "not the key's"),
        (certificate("."), ".", "no regular file"),
        (key("missing.key"), "missing.key", "No such file"),
        (key("server.pem"), "server.pem", "cannot be used"),
        (key("open.key"), "open.key", "others may read"),
        (authority("empty.pem"), "empty.pem", "no certificate"),
        (authority("missing.pem"), "missing.pem", "No such file"),
    ] {
        let error = refused(files(&change));
        let text = format!("{error:#}");
        assert!(text.contains(why), "{file}: {text}");
        assert!(text.contains(&at.path(file).display().to_string()), "{file}: {text}");
        assert!(!error.remedy_text().is_empty(), "{file}: {text}");
    }
}

#[test]
fn renewed_files_count_at_once_and_broken_ones_leave_all_as_it_was() {
    let at = Authority::new();
    at.issue("server", "localhost");
    let keys = TlsKeys::load(at.files("server", ClientCertificates::None)).unwrap();
    let first = keys.config();
    assert!(Arc::ptr_eq(&first, &keys.config()), "nothing has changed");
    at.issue("server", "localhost");
    let second = keys.config();
    assert!(!Arc::ptr_eq(&first, &second), "both files are new");
    let key = fs::read_to_string(at.path("server.key")).unwrap();
    at.write("server.key", "half a ke");
    assert!(Arc::ptr_eq(&second, &keys.config()));
    fs::remove_file(at.path("server.key")).unwrap();
    assert!(Arc::ptr_eq(&second, &keys.config()));
    at.write("server.key", &key);
    assert!(!Arc::ptr_eq(&second, &keys.config()), "good again");
}
