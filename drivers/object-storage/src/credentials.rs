// SPDX-License-Identifier: Apache-2.0
//! Where credentials come from. Those that expire are fetched anew by their provider when it is time.

use std::{
    collections::HashMap,
    fmt, fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use driver_api::{Error, ErrorKind, Result};
use http::{Method, Request};
use object_store::{
    CredentialProvider, StaticCredentialProvider,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider},
    azure::{
        AzureAccessKey, AzureCredential, AzureCredentialProvider, MicrosoftAzureBuilder, split_sas,
    },
    client::{HttpClient, HttpRequestBody, Signer as _},
    gcp::{GcpCredential, GcpSigningCredential, GoogleCloudStorageBuilder, ServiceAccountKey},
};
use ring::{rand::SystemRandom, signature};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    account::Credential,
    client::client_options,
    config::{Config, Credentials, Kind},
    error::{self, invalid},
};

/// The key of Azurite's account, which Microsoft publishes.
pub(crate) const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Who asks, by the options. Asks no server anything yet.
pub(crate) fn find(config: &Config, client: &HttpClient) -> Result<Credential> {
    match config.kind {
        Kind::S3 => aws(config).map(Credential::Aws),
        Kind::Azure => azure(config).map(Credential::Azure),
        Kind::Gcs => gcs(config, client),
        Kind::Swift => crate::swift::open(config, client).map(Credential::Swift),
    }
}

fn fixed(key_id: &str, secret_key: &str, token: Option<&str>) -> AwsCredentialProvider {
    Arc::new(StaticCredentialProvider::new(AwsCredential {
        key_id: key_id.to_owned(),
        secret_key: secret_key.to_owned(),
        token: token.map(str::to_owned),
    }))
}

fn aws(config: &Config) -> Result<Option<AwsCredentialProvider>> {
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    match config.credentials() {
        Credentials::None => Ok(None),
        Credentials::Keys => Ok(Some(fixed(
            text(&config.access_key).trim(),
            text(&config.secret_key).trim(),
            config.session_token.as_deref(),
        ))),
        Credentials::Environment => environment(config).map(Some),
        Credentials::Profile => {
            let path = profile_file(config)?;
            let name = config.profile.clone().unwrap_or_else(|| "default".to_owned());
            // Read now, so that a mistake is told when the backend is opened.
            let profile = Profile { path, name };
            profile.read()?;
            Ok(Some(Arc::new(profile)))
        }
        Credentials::Instance => {
            let mut builder = AmazonS3Builder::new();
            if let Some(url) = &config.instance_metadata {
                builder = builder.with_metadata_endpoint(url);
            }
            seed(builder, config, "the metadata service cannot be used").map(Some)
        }
        Credentials::WebIdentity => {
            let mut builder = AmazonS3Builder::new()
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, text(&config.token_file))
                .with_config(AmazonS3ConfigKey::RoleArn, text(&config.role_arn));
            if let Some(url) = &config.sts_endpoint {
                builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, url);
            }
            seed(builder, config, "the web identity cannot be used").map(Some)
        }
    }
}

/// What object_store makes of the environment; without keys in it, it would ask a metadata service that nobody named.
fn environment(config: &Config) -> Result<AwsCredentialProvider> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let known = set("AWS_ACCESS_KEY_ID") && set("AWS_SECRET_ACCESS_KEY")
        || set("AWS_WEB_IDENTITY_TOKEN_FILE") && set("AWS_ROLE_ARN")
        || set("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        || set("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if !known {
        return Err(invalid(
            "there are no credentials: none are set, and the environment has no AWS_ACCESS_KEY_ID",
        )
        .remedy("set `access_key` and `secret_key`, or another way by `credentials`"));
    }
    let builder = AmazonS3Builder::from_env().with_skip_signature(false);
    seed(builder, config, "the environment's credentials cannot be used")
}

fn seed(builder: AmazonS3Builder, config: &Config, what: &str) -> Result<AwsCredentialProvider> {
    let region = config.region.as_deref().unwrap_or("us-east-1");
    let store = builder
        .with_bucket_name("credentials")
        .with_region(region)
        .with_client_options(client_options(config)?)
        .build()
        .map_err(|error| error::of_store(&error, what))?;
    Ok(Arc::clone(store.credentials()))
}

fn profile_file(config: &Config) -> Result<PathBuf> {
    if let Some(path) = &config.profile_file {
        return Ok(PathBuf::from(path));
    }
    match std::env::var_os("HOME") {
        Some(home) => Ok(PathBuf::from(home).join(".aws/credentials")),
        None => Err(invalid("the host has no home directory to look for .aws/credentials in")
            .remedy("set `profile_file`")),
    }
}

/// A profile in a file, read whenever it is needed: who changes the keys there need not restart anything.
#[derive(Debug)]
struct Profile {
    path: PathBuf,
    name: String,
}

impl Profile {
    fn read(&self) -> Result<AwsCredential> {
        let text = fs::read_to_string(&self.path).map_err(|error| {
            Error::from_io("the credentials file cannot be read", &error)
                .with("profile_file", self.path.display())
                .remedy("correct `profile_file`, or make the file readable for the host")
        })?;
        let wrong = |message: String| {
            Error::new(ErrorKind::UNAUTHENTICATED, message)
                .with("profile_file", self.path.display())
                .with("profile", &self.name)
        };
        let values = profile_of(&text, &self.name)
            .ok_or_else(|| wrong("the credentials file has no such profile".to_owned()))?;
        let value = |key: &str| values.get(key).cloned();
        let need = |key: &str| value(key).ok_or_else(|| wrong(format!("the profile has no {key}")));
        Ok(AwsCredential {
            key_id: need("aws_access_key_id")?,
            secret_key: need("aws_secret_access_key")?,
            token: value("aws_session_token"),
        })
    }
}

/// The keys and values of the section `[name]` or `[profile name]`.
fn profile_of(text: &str, name: &str) -> Option<HashMap<String, String>> {
    let mut found: Option<HashMap<String, String>> = None;
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let section = section.trim();
            inside = section == name
                || section.strip_prefix("profile ").is_some_and(|section| section.trim() == name);
            if inside {
                found.get_or_insert_default();
            }
        } else if inside
            && let (Some((key, value)), Some(values)) = (line.split_once('='), found.as_mut())
        {
            values.insert(key.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[async_trait]
impl CredentialProvider for Profile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        self.read().map(Arc::new).map_err(|error| object_store::Error::Generic {
            store: "profile",
            source: Box::new(error),
        })
    }
}

fn azure(config: &Config) -> Result<AzureCredentialProvider> {
    let fixed = |credential| Arc::new(StaticCredentialProvider::new(credential)) as _;
    if let Some(sas) = &config.sas {
        let pairs = split_sas(sas.trim())
            .map_err(|error| error::of_store(&error, "`sas` is no shared access signature"))?;
        return Ok(fixed(AzureCredential::SASToken(pairs)));
    }
    if let (Some(secret), Some(id), Some(tenant)) =
        (&config.client_secret, &config.client_id, &config.tenant_id)
    {
        let store = MicrosoftAzureBuilder::new()
            .with_account(config.account.clone().unwrap_or_default())
            .with_container_name("credentials")
            .with_client_secret_authorization(id, secret, tenant)
            .with_client_options(client_options(config)?)
            .build()
            .map_err(|error| error::of_store(&error, "the client's secret cannot be used"))?;
        return Ok(Arc::clone(store.credentials()));
    }
    let key = config.account_key.as_deref().unwrap_or(EMULATOR_KEY).trim();
    let key = AzureAccessKey::try_new(key).map_err(|_| {
        invalid("`account_key` is not base64").remedy("copy it as a whole from the account's keys")
    })?;
    Ok(fixed(AzureCredential::AccessKey(key)))
}

/// What is needed of a service account's file.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    #[serde(default)]
    private_key_id: String,
    token_uri: Option<String>,
}

fn gcs(config: &Config, client: &HttpClient) -> Result<Credential> {
    let json = match (&config.service_account_json, &config.service_account) {
        (Some(json), _) => json.clone(),
        (None, Some(path)) => fs::read_to_string(path).map_err(|error| {
            Error::from_io("`service_account` cannot be read", &error)
                .with("service_account", path)
                .remedy("correct the path, or make the file readable for the host")
        })?,
        (None, None) => return gcs_default(config),
    };
    let account: ServiceAccount = serde_json::from_str(&json).map_err(|error| {
        invalid(format!("the service account is not as it should be: {error}"))
            .remedy("have its JSON made anew: `gcloud iam service-accounts keys create`")
    })?;
    let key = ServiceAccountKey::new(Box::new(RsaKey::from_pem(&account.private_key)?));
    let signing = Arc::new(StaticCredentialProvider::new(GcpSigningCredential {
        email: account.client_email.clone(),
        private_key: Some(key),
    }));
    let bearer = Bearer {
        key: RsaKey::from_pem(&account.private_key)?,
        client: client.clone(),
        token: Mutex::new(None),
        account,
    };
    Ok(Credential::Gcs(Arc::new(bearer), signing))
}

/// The application's default credentials, as Google's own programs find them.
fn gcs_default(config: &Config) -> Result<Credential> {
    let store = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name("credentials")
        .with_client_options(client_options(config)?)
        .build()
        .map_err(|error| {
            error::of_store(&error, "there are no credentials").remedy("set `service_account`")
        })?;
    Ok(Credential::Gcs(Arc::clone(store.credentials()), Arc::clone(store.signing_credentials())))
}

/// A private key that signs with RSA and SHA-256.
struct RsaKey(signature::RsaKeyPair);

impl RsaKey {
    fn from_pem(pem: &str) -> Result<Self> {
        let wrong = || {
            invalid("the service account's `private_key` is no RSA key in PKCS#8")
                .remedy("have its JSON made anew: `gcloud iam service-accounts keys create`")
        };
        use base64::engine::general_purpose::STANDARD;
        let text: String =
            pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
        let der = STANDARD.decode(text).map_err(|_| wrong())?;
        let pair = match pem.contains("BEGIN RSA PRIVATE KEY") {
            true => signature::RsaKeyPair::from_der(&der),
            false => signature::RsaKeyPair::from_pkcs8(&der),
        };
        pair.map(Self).map_err(|_| wrong())
    }
}

impl object_store::client::Signer for RsaKey {
    fn sign(&self, text: &[u8]) -> object_store::Result<Vec<u8>> {
        let mut signed = vec![0; self.0.public().modulus_len()];
        self.0
            .sign(&signature::RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signed)
            .map_err(|_| object_store::Error::Generic {
                store: "GCS",
                source: "the key does not sign".into(),
            })?;
        Ok(signed)
    }
}

/// A service account that exchanges its signature for tokens, and renews them before they expire.
struct Bearer {
    account: ServiceAccount,
    key: RsaKey,
    client: HttpClient,
    token: Mutex<Option<(Arc<GcpCredential>, Instant)>>,
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").field("email", &self.account.client_email).finish_non_exhaustive()
    }
}

/// Tokens are renewed so long before they expire.
const EARLY: Duration = Duration::from_secs(240);

#[derive(Deserialize)]
struct Token {
    access_token: String,
    expires_in: u64,
}

impl Bearer {
    fn assertion(&self, uri: &str) -> object_store::Result<String> {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let header = serde_json::json!({
            "alg": "RS256", "typ": "JWT", "kid": self.account.private_key_id,
        });
        let claims = serde_json::json!({
            "iss": self.account.client_email, "sub": self.account.client_email, "aud": uri,
            "scope": "https://www.googleapis.com/auth/cloud-platform",
            "iat": now, "exp": now + 3600,
        });
        let encode = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signed = self.key.sign(message.as_bytes())?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signed)))
    }

    async fn fetch(&self) -> object_store::Result<(Arc<GcpCredential>, Instant)> {
        let wrong = |source: Box<dyn std::error::Error + Send + Sync>| {
            object_store::Error::Generic { store: "GCS token", source }
        };
        let uri =
            self.account.token_uri.as_deref().unwrap_or("https://oauth2.googleapis.com/token");
        let body = format!(
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={}",
            self.assertion(uri)?
        );
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("content-type", "application/x-www-form-urlencoded")
            .extension(crate::client::Purpose("token"))
            .body(HttpRequestBody::from(body))
            .map_err(|error| wrong(error.into()))?;
        let answer = self.client.execute(request).await.map_err(|error| wrong(error.into()))?;
        let (parts, body) = answer.into_parts();
        let body = body.bytes().await.map_err(|error| wrong(error.into()))?;
        if !parts.status.is_success() {
            let said = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            return Err(object_store::Error::Unauthenticated {
                path: uri.to_owned(),
                source: format!("{}: {said}", parts.status).into(),
            });
        }
        let token: Token = serde_json::from_slice(&body).map_err(|error| wrong(error.into()))?;
        let expires = Instant::now() + Duration::from_secs(token.expires_in);
        Ok((Arc::new(GcpCredential { bearer: token.access_token }), expires))
    }
}

#[async_trait]
impl CredentialProvider for Bearer {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let mut token = self.token.lock().await;
        if let Some((token, expires)) = token.as_ref()
            && Instant::now() + EARLY < *expires
        {
            return Ok(Arc::clone(token));
        }
        let fetched = self.fetch().await?;
        let credential = Arc::clone(&fetched.0);
        *token = Some(fetched);
        Ok(credential)
    }
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
