// SPDX-License-Identifier: Apache-2.0

//! What a client of Swift is told: plain data.

use std::fmt;
use std::time::Duration;

use object_store::{ClientOptions, RetryConfig};

/// A password, key or token: it cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself, to be sent or signed with, never to be logged.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Who asks Keystone for a token.
#[derive(Debug, Clone)]
pub enum KeystoneIdentity {
    /// A user of a domain, scoped to a project.
    Password {
        /// The user's name.
        user: String,
        /// The user's password.
        password: Secret,
        /// The domain the user belongs to, by name.
        user_domain: String,
        /// The project whose object store is used, by name.
        project: String,
        /// The domain the project belongs to, by name.
        project_domain: String,
    },
    /// An application credential: its project is part of it.
    Application {
        /// The credential's id.
        id: String,
        /// The credential's secret.
        secret: Secret,
    },
}

/// How tokens are got.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Auth version 1 (tempauth, swauth, radosgw): one GET answers with a token and the storage URL.
    V1 {
        /// The URL, such as `https://swift.example.com/auth/v1.0`.
        auth_url: String,
        /// The user, such as `test:tester`.
        user: String,
        /// The user's key.
        key: Secret,
    },
    /// Keystone version 3.
    Keystone {
        /// The identity service's URL, with or without `/v3`.
        auth_url: String,
        /// Who asks.
        identity: KeystoneIdentity,
        /// The region whose object store is used; none takes the first in the catalogue.
        region: Option<String>,
        /// The endpoint's interface: `public`, `internal` or `admin`.
        interface: String,
    },
    /// A storage URL and a token which somebody else renews.
    Static {
        /// The account's storage URL, such as `https://swift.example.com/v1/AUTH_test`.
        storage_url: String,
        /// The token.
        token: Secret,
    },
}

/// One container of one account, and how to reach it.
#[derive(Debug, Clone)]
pub struct Config {
    /// How tokens are got.
    pub auth: Auth,
    /// The account's storage URL, if not the one that authentication answers with (a server behind another address).
    pub storage_url: Option<String>,
    /// The container.
    pub container: String,
    /// The container that holds segments of multi-part uploads; none is `CONTAINER_segments`.
    pub segments_container: Option<String>,
    /// What is put in front of the names of segments and of uploads' markers. Different for each container that shares
    /// one segments container.
    pub part_prefix: String,
    /// The key that signs URLs; none has to be loaded or set by a call before URLs can be signed.
    pub tempurl_key: Option<Secret>,
    /// The longest time for making a connection.
    pub connect_timeout: Duration,
    /// The longest silence of the server: before an answer begins, and between two pieces of its body.
    pub request_timeout: Duration,
    /// Bytes per second that a body must flow with, or it counts as stuck: the deadline of a request is
    /// `retry.retry_timeout` and one second for each such number of bytes.
    pub minimum_rate: u64,
    /// Attempts, waits between them, and the deadline of an operation.
    pub retry: RetryConfig,
    /// Certificates (PEM) which are trusted besides the system's.
    pub ca_pem: Option<Vec<u8>>,
    /// Proxy, HTTP version, user agent and the like. Timeouts in it are replaced by those above.
    pub client_options: ClientOptions,
    /// Whether an overwriting put looks for segments of what it replaces, which costs a HEAD. Without it, segments of an
    /// overwritten large object stay until they are swept.
    pub check_replaced: bool,
    /// Whether the MD5 of an object that is read as a whole is checked against its ETag.
    pub verify_reads: bool,
}

impl Config {
    /// A configuration with the defaults: connections within 10 s, answers within 30 s, operations within 180 s,
    /// 64 KiB/s at least.
    pub fn new(auth: Auth, container: impl Into<String>) -> Self {
        Self {
            auth,
            storage_url: None,
            container: container.into(),
            segments_container: None,
            part_prefix: String::new(),
            tempurl_key: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            minimum_rate: 64 << 10,
            retry: RetryConfig::default(),
            ca_pem: None,
            client_options: ClientOptions::new(),
            check_replaced: true,
            verify_reads: true,
        }
    }

    /// The name of the container that holds segments.
    pub fn segments_container(&self) -> String {
        self.segments_container.clone().unwrap_or_else(|| format!("{}_segments", self.container))
    }

    /// The time a body of `bytes` may take at the minimum rate.
    pub(crate) fn transfer_time(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.minimum_rate.max(1) as f64)
    }
}
