// SPDX-License-Identifier: Apache-2.0
//! Options that are one of several words.

use serde::Deserialize;

/// The kind of store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Amazon S3, and what speaks its protocol.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
    /// OpenStack Swift.
    Swift,
}

impl Kind {
    /// The name in options.
    pub fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
            Self::Swift => "swift",
        }
    }

    /// Options that only this kind has.
    pub(crate) fn own_options(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &[
                "style",
                "access_key",
                "secret_key",
                "session_token",
                "profile",
                "profile_file",
                "role_arn",
                "sts_endpoint",
                "server_side_encryption",
                "kms_key_id",
                "sse_customer_key",
                "conditional_put",
                "checksum",
            ],
            Self::Azure => &[
                "account",
                "account_key",
                "sas",
                "client_id",
                "client_secret",
                "tenant_id",
                "authority_host",
            ],
            Self::Gcs => &["service_account", "service_account_json", "location"],
            Self::Swift => &[
                "auth",
                "auth_url",
                "user",
                "password",
                "user_domain",
                "project_domain",
                "application_credential_id",
                "application_credential_secret",
                "interface",
                "temp_url_key",
            ],
        }
    }
}

/// Where the bucket's name stands in a URL of S3.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// In the path: `https://host/bucket/key`.
    #[default]
    Path,
    /// In the host's name: `https://bucket.host/key`.
    Virtual,
}

/// Where the credentials of S3 come from; of Azure, if from neither key, signature nor secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// `access_key` and `secret_key`.
    Keys,
    /// `AWS_ACCESS_KEY_ID` and its like in the host's environment.
    Environment,
    /// A profile in a file such as `~/.aws/credentials`.
    Profile,
    /// The metadata service of the machine.
    Instance,
    /// A token in a file, exchanged at the security token service.
    WebIdentity,
    /// None at all: buckets that everybody may read.
    None,
}

/// How S3 encrypts what it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Encryption {
    /// With keys of the store.
    #[serde(rename = "AES256")]
    Aes256,
    /// With a key of the key management service.
    #[serde(rename = "aws:kms")]
    Kms,
    /// Twice, with a key of the key management service.
    #[serde(rename = "aws:kms:dsse")]
    KmsDsse,
}

impl Encryption {
    /// The value of `x-amz-server-side-encryption`.
    pub fn header(self) -> &'static str {
        match self {
            Self::Aes256 => "AES256",
            Self::Kms => "aws:kms",
            Self::KmsDsse => "aws:kms:dsse",
        }
    }
}

/// Whether conditional writes are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConditionalPut {
    /// They are, as the kind of store has them.
    #[default]
    Auto,
    /// They are refused: the store ignores conditions.
    Off,
}

/// The sum that S3 is given with what it is to keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checksum {
    /// `Content-MD5`, which every store checks.
    #[default]
    Md5,
    /// `x-amz-checksum-crc32c`, cheaper; AWS and newer stores check it.
    Crc32c,
}

/// The version of Swift's authentication.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwiftAuth {
    /// Tempauth and the like.
    V1,
    /// Keystone.
    V3,
}
