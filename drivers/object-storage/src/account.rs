// SPDX-License-Identifier: Apache-2.0
//! What a request to the store needs: where it goes, who asks, over which client.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use driver_api::{Result, Stats};
use http::{HeaderName, HeaderValue, Uri, header::AUTHORIZATION};
use object_store::{
    ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, AwsAuthorizer, AwsCredentialProvider, S3CopyIfNotExists},
    azure::{AzureAuthorizer, AzureCredentialProvider, MicrosoftAzureBuilder},
    client::{HttpClient, HttpRequest},
    gcp::{GcpCredentialProvider, GcpSigningCredentialProvider, GoogleCloudStorageBuilder},
    list::PaginatedListStore,
    multipart::MultipartStore,
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::{
    client::{self, Shared},
    config::{Checksum, ConditionalPut, Config, Encryption, Kind, Style, check_url},
    credentials,
    error::{self, invalid},
    pace::Pace,
    probing::Probed,
    traffic::Traffic,
};

/// What stands unencoded in a path; as signatures want it.
const IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// What stands unencoded in a query.
const IN_QUERY: &AsciiSet = &IN_PATH.add(b'/');

/// Who asks.
#[derive(Clone)]
pub(crate) enum Credential {
    /// S3; none: nobody in particular.
    Aws(Option<AwsCredentialProvider>),
    /// Azure.
    Azure(AzureCredentialProvider),
    /// GCS: the bearer of requests, and the key that signs URLs.
    Gcs(GcpCredentialProvider, GcpSigningCredentialProvider),
    /// Swift: its client logs in by itself.
    Swift(swift::Swift),
}

/// A bucket behind object_store's traits.
#[derive(Clone)]
pub struct BucketStore {
    /// Objects.
    pub objects: Arc<dyn ObjectStore>,
    /// Uploads in parts.
    pub uploads: Arc<dyn MultipartStore>,
    /// Listings page by page.
    pub pages: Arc<dyn PaginatedListStore>,
}

impl BucketStore {
    fn of<S: ObjectStore + MultipartStore + PaginatedListStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self { objects: Arc::clone(&store) as _, uploads: Arc::clone(&store) as _, pages: store }
    }
}

/// One account at one store: what all requests of a backend have in common.
pub(crate) struct Account {
    /// The kind of store.
    pub kind: Kind,
    /// The options that the backend was opened with.
    pub config: Config,
    /// The service's URL; its path does not end in `/`.
    pub base: Url,
    /// Who asks.
    pub credential: Credential,
    /// Sends requests and counts them.
    pub client: HttpClient,
    /// Headers that have an object encrypted when it is written (S3).
    pub encrypt: Vec<(HeaderName, HeaderValue)>,
    /// Headers with the customer's key that every request for an object's content needs (S3).
    pub customer: Vec<(HeaderName, HeaderValue)>,
    /// What was counted.
    pub traffic: Arc<Traffic>,
    /// How fast the store wants to be asked.
    pub pace: Pace,
    /// Which conditions the store heeds (S3).
    pub probed: Probed,
    stores: Mutex<HashMap<String, BucketStore>>,
}

impl Account {
    /// The account that the options describe. Asks no server anything.
    pub fn new(config: Config) -> Result<Self> {
        config.check()?;
        let traffic = Arc::new(Traffic::default());
        let client = client::client(&config, &traffic)?;
        let base = base(&config)?;
        let credential = credentials::find(&config, &client)?;
        let (encrypt, customer) = encryption(&config)?;
        Ok(Self {
            kind: config.kind,
            base,
            credential,
            client,
            encrypt,
            customer,
            traffic,
            pace: Pace::default(),
            probed: Probed::new(),
            stores: Mutex::default(),
            config,
        })
    }

    /// The region that requests are signed for.
    pub fn region(&self) -> &str {
        self.config.region.as_deref().unwrap_or("us-east-1")
    }

    /// What the store's own people call a bucket.
    pub fn bucket_word(&self) -> &'static str {
        match self.kind {
            Kind::Azure | Kind::Swift => "container",
            Kind::S3 | Kind::Gcs => "bucket",
        }
    }

    /// The endpoint for messages: without secrets.
    pub fn shown_endpoint(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The name of the storage account (Azure).
    pub fn azure_account(&self) -> &str {
        azure_account(&self.config)
    }

    /// Which sum S3 is given with what it is to keep.
    pub fn checksum(&self) -> Checksum {
        self.config.checksum.unwrap_or_default()
    }

    /// Whether conditional writes may be used.
    pub fn conditional(&self) -> bool {
        self.config.conditional_put.unwrap_or_default() == ConditionalPut::Auto
    }

    /// The URL of the service (both empty), of a bucket, or of an object. A value of the query that is empty stays as `name=`.
    pub fn url(&self, bucket: &str, key: &str, query: &[(String, String)]) -> Result<Uri> {
        let mut text = self.base.as_str().trim_end_matches('/').to_owned();
        let in_host = self.kind == Kind::S3 && self.config.style == Some(Style::Virtual);
        if !bucket.is_empty() && in_host {
            text = text.replacen("://", &format!("://{bucket}."), 1);
        } else if !bucket.is_empty() {
            text.push('/');
            text.extend(utf8_percent_encode(bucket, IN_PATH));
        }
        if !key.is_empty() || bucket.is_empty() || in_host {
            text.push('/');
            text.extend(utf8_percent_encode(key, IN_PATH));
        }
        for (index, (name, value)) in query.iter().enumerate() {
            text.push(if index == 0 { '?' } else { '&' });
            text.extend(utf8_percent_encode(name, IN_QUERY));
            text.push('=');
            text.extend(utf8_percent_encode(value, IN_QUERY));
        }
        // What makes a host's name of a bucket's can be none, as of one that begins with `xn--`.
        if let (true, Err(error)) = (in_host, Url::parse(&text)) {
            return Err(invalid(format!("no URL can be made of the name: {error}")));
        }
        text.parse().map_err(|error| invalid(format!("no URL can be made of the name: {error}")))
    }

    /// Signs a request. Everything that is to be signed must be in it.
    pub async fn authorize(&self, request: &mut HttpRequest) -> Result<()> {
        match &self.credential {
            Credential::Aws(None) | Credential::Swift(_) => Ok(()),
            Credential::Aws(Some(provider)) => {
                let credential = provider
                    .get_credential()
                    .await
                    .map_err(|error| error::no_credentials(&error))?;
                AwsAuthorizer::new(&credential, "s3", self.region())
                    // The sum that goes with the content is signed instead: hashing once is enough.
                    .with_sign_payload(
                        request.body().is_empty() || request.body().content_length() < 1 << 20,
                    )
                    .try_authorize(request, None)
                    .map_err(|error| error::of_store(&error, "the request cannot be signed"))
            }
            Credential::Azure(provider) => {
                let credential = provider
                    .get_credential()
                    .await
                    .map_err(|error| error::no_credentials(&error))?;
                AzureAuthorizer::new(&credential, self.azure_account())
                    .try_authorize(request)
                    .map_err(|error| error::of_store(&error, "the request cannot be signed"))
            }
            Credential::Gcs(provider, _) => {
                let credential = provider
                    .get_credential()
                    .await
                    .map_err(|error| error::no_credentials(&error))?;
                let bearer = HeaderValue::from_str(&format!("Bearer {}", credential.bearer))
                    .map_err(|_| invalid("the token has characters that no header can have"))?;
                request.headers_mut().insert(AUTHORIZATION, bearer);
                Ok(())
            }
        }
    }

    /// The bucket behind object_store's traits, with this account's credentials, client and limits. Kept for the next call.
    pub fn bucket_store(&self, bucket: &str) -> Result<BucketStore> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(bucket) {
            return Ok(store.clone());
        }
        let store = self.open_bucket(bucket)?;
        stores.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }

    fn open_bucket(&self, bucket: &str) -> Result<BucketStore> {
        let wrong =
            |error: object_store::Error| error::of_store(&error, "the bucket cannot be opened");
        let endpoint = self.base.as_str().trim_end_matches('/').to_owned();
        let retry = self.retry_config(self.config.operation_timeout());
        let connector = Shared(self.client.clone());
        Ok(match &self.credential {
            Credential::Aws(credential) => {
                let virtual_style = self.config.style == Some(Style::Virtual);
                let endpoint = match virtual_style {
                    true => endpoint.replacen("://", &format!("://{bucket}."), 1),
                    false => endpoint,
                };
                let mut builder = AmazonS3Builder::new()
                    .with_bucket_name(bucket)
                    .with_region(self.region())
                    .with_endpoint(endpoint)
                    .with_allow_http(true)
                    .with_virtual_hosted_style_request(virtual_style)
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
                builder = match credential {
                    Some(credential) => builder.with_credentials(Arc::clone(credential)),
                    None => builder.with_skip_signature(true),
                };
                if let Some(key) = &self.config.sse_customer_key {
                    builder = builder.with_ssec_encryption(key);
                }
                match self.config.server_side_encryption {
                    Some(Encryption::Kms) => {
                        let key = self.config.kms_key_id.as_deref().unwrap_or_default();
                        builder = builder.with_sse_kms_encryption(key);
                    }
                    Some(Encryption::KmsDsse) => {
                        let key = self.config.kms_key_id.as_deref().unwrap_or_default();
                        builder = builder.with_dsse_kms_encryption(key);
                    }
                    _ => {}
                }
                BucketStore::of(builder.build().map_err(wrong)?)
            }
            Credential::Azure(credential) => BucketStore::of(
                MicrosoftAzureBuilder::new()
                    .with_account(self.azure_account())
                    .with_container_name(bucket)
                    .with_endpoint(endpoint)
                    .with_allow_http(true)
                    .with_credentials(Arc::clone(credential))
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .build()
                    .map_err(wrong)?,
            ),
            Credential::Gcs(credential, signing) => BucketStore::of(
                GoogleCloudStorageBuilder::new()
                    .with_bucket_name(bucket)
                    .with_base_url(&endpoint)
                    .with_credentials(Arc::clone(credential))
                    .with_signing_credentials(Arc::clone(signing))
                    .with_retry(retry)
                    .with_http_connector(connector)
                    .build()
                    .map_err(wrong)?,
            ),
            Credential::Swift(swift) => BucketStore::of(swift.with_container(bucket)),
        })
    }

    /// The figures of the backend.
    pub fn stats(&self) -> Stats {
        let storm = self.pace.storm(Instant::now());
        let gap = storm.map_or(0.0, |(gap, _)| gap.as_secs_f64());
        self.traffic.stats().gauge("request_gap_seconds", gap)
    }

    /// How object_store repeats requests, within `time`.
    fn retry_config(&self, time: Duration) -> RetryConfig {
        RetryConfig { retry_timeout: time, max_retries: 20, ..RetryConfig::default() }
    }
}

impl fmt::Debug for Account {
    /// Never prints a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("kind", &self.kind)
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

fn azure_account(config: &Config) -> &str {
    config.account.as_deref().unwrap_or("devstoreaccount1")
}

fn base(config: &Config) -> Result<Url> {
    let text = match (&config.endpoint, config.kind) {
        (Some(endpoint), Kind::Azure) if config.emulator => {
            let endpoint = endpoint.trim_end_matches('/');
            let account = azure_account(config);
            match endpoint.ends_with(&format!("/{account}")) {
                true => endpoint.to_owned(),
                false => format!("{endpoint}/{account}"),
            }
        }
        (Some(endpoint), _) => endpoint.clone(),
        (None, Kind::S3) => {
            let region = config.region.as_deref().unwrap_or("us-east-1");
            format!("https://s3.{region}.amazonaws.com")
        }
        (None, Kind::Azure) if config.emulator => {
            format!("http://127.0.0.1:10000/{}", azure_account(config))
        }
        (None, Kind::Azure) => format!("https://{}.blob.core.windows.net", azure_account(config)),
        (None, Kind::Gcs) => "https://storage.googleapis.com".to_owned(),
        (None, Kind::Swift) => config.auth_url.clone().unwrap_or_default(),
    };
    check_url("endpoint", &text)
}

type Headers = Vec<(HeaderName, HeaderValue)>;

fn encryption(config: &Config) -> Result<(Headers, Headers)> {
    let (mut encrypt, mut customer) = (Headers::new(), Headers::new());
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| invalid("an option of encryption has characters that no header can have"))
    };
    if let Some(way) = config.server_side_encryption {
        let name = HeaderName::from_static("x-amz-server-side-encryption");
        encrypt.push((name, HeaderValue::from_static(way.header())));
        if let Some(key) = &config.kms_key_id {
            let name = HeaderName::from_static("x-amz-server-side-encryption-aws-kms-key-id");
            encrypt.push((name, value(key)?));
        }
    }
    if let Some(key) = &config.sse_customer_key {
        use md5::Digest as _;
        let raw = customer_key(key)?;
        let named = |end: &str, text: &str| -> Result<_> {
            let name = format!("x-amz-server-side-encryption-customer-{end}");
            let name = HeaderName::try_from(name).map_err(|error| invalid(error.to_string()))?;
            let mut text = value(text)?;
            text.set_sensitive(true);
            Ok((name, text))
        };
        customer.push(named("algorithm", "AES256")?);
        customer.push(named("key", &BASE64.encode(&raw))?);
        customer.push(named("key-md5", &BASE64.encode(md5::Md5::digest(&raw)))?);
    }
    Ok((encrypt, customer))
}

/// The customer's key of 32 bytes in base64.
pub(crate) fn customer_key(text: &str) -> Result<Vec<u8>> {
    match BASE64.decode(text.trim()) {
        Ok(key) if key.len() == 32 => Ok(key),
        _ => Err(invalid("`sse_customer_key` is not 32 bytes in base64")
            .remedy("make one with `openssl rand -base64 32`, and keep it well: without it nothing can be read")),
    }
}

#[cfg(test)]
#[path = "account_tests.rs"]
mod tests;
