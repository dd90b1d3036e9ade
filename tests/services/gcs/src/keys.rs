// SPDX-License-Identifier: Apache-2.0
//! The service account: its key, and the files that clients read.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use ring::rsa;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The account whose file has the address of the server without TLS.
pub const ACCOUNT: &str = "service-account.json";
/// The same account for the server with TLS.
pub const ACCOUNT_TLS: &str = "service-account-tls.json";

/// A service account as the server knows it.
pub struct Account {
    /// Whom requests are signed by.
    pub email: String,
    /// The key's name, in what it signs.
    pub key_id: String,
    /// Where tokens are fetched, as assertions name it.
    pub audiences: Vec<String>,
    /// The public key, PKCS#1 DER.
    pub(crate) public: Vec<u8>,
    /// What tokens are sealed with.
    pub(crate) seal: [u8; 32],
}

/// Makes a key with `openssl`, and both files in `dir`; an account that is there keeps its key.
///
/// # Errors
///
/// `openssl` fails, or a file cannot be written.
pub fn make(dir: &Path, project: &str, url: &str, tls_url: &str) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let account = dir.join(ACCOUNT);
    let pem = if account.exists() { field(&read(&account)?, "private_key")? } else { generate()? };
    let key_id = hex(&Sha256::digest(pem.as_bytes()))[..40].to_owned();
    for (name, base) in [(ACCOUNT, url), (ACCOUNT_TLS, tls_url)] {
        let text = json!({
            "type": "service_account",
            "project_id": project,
            "private_key_id": key_id,
            "private_key": pem,
            "client_email": format!("novastor@{project}.iam.gserviceaccount.com"),
            "client_id": "100000000000000000001",
            "auth_uri": format!("{base}/auth"),
            "token_uri": format!("{base}/token"),
            "universe_domain": "googleapis.com",
            "gcs_base_url": base,
        });
        fs::write(dir.join(name), serde_json::to_vec_pretty(&text)?)?;
    }
    Ok(())
}

impl Account {
    /// Reads what [`make`] made.
    ///
    /// # Errors
    ///
    /// A file is missing or is no service account.
    pub fn load(dir: &Path) -> Result<Self, Box<dyn Error>> {
        let account = read(&dir.join(ACCOUNT))?;
        let tls = read(&dir.join(ACCOUNT_TLS))?;
        let pem = field(&account, "private_key")?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("the account's key: {error}"))?;
        let pair = rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der())
            .map_err(|error| format!("the account's key: {error}"))?;
        Ok(Self {
            email: field(&account, "client_email")?,
            key_id: field(&account, "private_key_id")?,
            audiences: vec![field(&account, "token_uri")?, field(&tls, "token_uri")?],
            public: pair.public().as_ref().to_vec(),
            seal: Sha256::digest(pem.as_bytes()).into(),
        })
    }
}

fn generate() -> Result<String, Box<dyn Error>> {
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .output()
        .map_err(|error| format!("openssl cannot be started, install it: {error}"))?;
    if !made.status.success() {
        return Err(
            format!("openssl made no key: {}", String::from_utf8_lossy(&made.stderr)).into()
        );
    }
    Ok(String::from_utf8(made.stdout)?)
}

fn read(path: &Path) -> Result<Value, Box<dyn Error>> {
    let text = fs::read(path)
        .map_err(|error| format!("{}: {error}; make it with gcs-fake keys", path.display()))?;
    Ok(serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))?)
}

fn field(account: &Value, name: &str) -> Result<String, Box<dyn Error>> {
    Ok(account[name]
        .as_str()
        .ok_or_else(|| format!("the service account has no {name}"))?
        .to_owned())
}

/// Bytes as digits of base sixteen.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
