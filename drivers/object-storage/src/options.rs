// SPDX-License-Identifier: Apache-2.0
//! What the driver says of itself and of its options.

use driver_api::{DriverInfo, OptionSpec, OptionType};

/// What the driver says of itself.
pub(crate) fn describe() -> DriverInfo {
    let info = DriverInfo::new("whole objects in S3, Azure Blob, Google Cloud Storage and Swift")
        .option(choice("kind", &["s3", "azure", "gcs", "swift"], "The kind of store.").required())
        .option(text("endpoint", "The service's URL; default: the public one."))
        .option(path("ca_file", "A file of certificates (PEM) to be trusted besides the system's."))
        .option(text("proxy", "The URL of a proxy for all requests."))
        .option(text("proxy_user", "The user that the proxy knows."))
        .option(text("proxy_password", "That user's password.").secret())
        .option(secs("connect_timeout_secs", "5", "How long making a connection may take."))
        .option(secs("request_timeout_secs", "30", "How long a server may be silent while asked."))
        .option(secs(
            "operation_timeout_secs",
            "60",
            "How long an operation may take, with all that is repeated.",
        ))
        .option(text(
            "probe_bucket",
            "A bucket that the health probe asks for; without it, buckets are listed.",
        ))
        .option(text("region", "The region (S3: default us-east-1; Swift: of the catalogue)."))
        .option(text("project", "The project (GCS: of new buckets; Swift: that logs in)."))
        .option(text("storage_class", "The storage class of new objects that name none."))
        .option(OptionSpec::new(
            "copy_at_once",
            OptionType::SIZE,
            "The largest object that is copied by one request, 5 MiB to 5 GiB; larger ones are copied piece by piece (default: S3 5 GiB, GCS 256 MiB).",
        ));
    swift(gcs(azure(s3(info))))
}

fn s3(info: DriverInfo) -> DriverInfo {
    info.option(choice(
        "style",
        &["path", "virtual"],
        "Where the bucket's name stands in URLs of S3; default: path.",
    ))
    .option(text("access_key", "The id of the access key (S3).").secret())
    .option(text("secret_key", "The secret access key (S3).").secret())
    .option(text("session_token", "The token of temporary keys (S3).").secret())
    .option(choice(
        "credentials",
        &["keys", "environment", "profile", "instance", "web_identity", "none"],
        "Where credentials come from (S3; Azure: instance or web_identity); default: what the other options imply, else the environment.",
    ))
    .option(text("profile", "The profile in the credentials file (S3); default: default."))
    .option(path("profile_file", "The credentials file (S3); default: ~/.aws/credentials."))
    .option(text("instance_metadata", "The URL of the machine's metadata service (S3, Azure)."))
    .option(text("role_arn", "The role to assume with a web identity (S3)."))
    .option(path("token_file", "The file with the token of a web identity (S3, Azure)."))
    .option(text("sts_endpoint", "The URL of the security token service (S3)."))
    .option(choice(
        "server_side_encryption",
        &["AES256", "aws:kms", "aws:kms:dsse"],
        "How S3 encrypts what it keeps; default: as the bucket says.",
    ))
    .option(text("kms_key_id", "The key of the key management service (S3)."))
    .option(
        text("sse_customer_key", "A key of the caller's to encrypt with: 32 bytes in base64 (S3).")
            .secret(),
    )
    .option(choice(
        "conditional_put",
        &["auto", "off"],
        "off: refuse conditional writes, as the store ignores conditions (S3).",
    ))
    .option(choice(
        "checksum",
        &["md5", "crc32c"],
        "The sum that S3 is given with what it is to keep; default: md5.",
    ))
}

fn azure(info: DriverInfo) -> DriverInfo {
    info.option(text("account", "The storage account (Azure)."))
        .option(text("account_key", "The account's key (Azure).").secret())
        .option(text("sas", "A shared access signature (Azure).").secret())
        .option(text("client_id", "The application's id (Azure)."))
        .option(text("client_secret", "The application's secret (Azure).").secret())
        .option(text("tenant_id", "The application's tenant (Azure)."))
        .option(text("authority_host", "The URL of the identity platform (Azure)."))
        .option(OptionSpec::new(
            "emulator",
            OptionType::BOOLEAN,
            "The store is Azurite, with its well-known account and key (Azure).",
        ))
}

fn gcs(info: DriverInfo) -> DriverInfo {
    info.option(path("service_account", "The service account's file of JSON (GCS)."))
        .option(text("service_account_json", "The service account's JSON itself (GCS).").secret())
        .option(text("location", "Where new buckets are (GCS)."))
}

fn swift(info: DriverInfo) -> DriverInfo {
    info.option(choice(
        "auth",
        &["v1", "v3"],
        "The version of authentication (Swift); default: v3.",
    ))
    .option(text("auth_url", "The URL of authentication (Swift)."))
    .option(text("user", "The user (Swift)."))
    .option(text("password", "The user's password or key (Swift).").secret())
    .option(text("user_domain", "The user's domain (Swift); default: Default."))
    .option(text("project_domain", "The project's domain (Swift); default: Default."))
    .option(text("application_credential_id", "The id of an application credential (Swift)."))
    .option(
        text("application_credential_secret", "The secret of an application credential (Swift).")
            .secret(),
    )
    .option(choice(
        "interface",
        &["public", "internal", "admin"],
        "Which endpoint of the catalogue (Swift); default: public.",
    ))
    .option(text("temp_url_key", "The key that signs URLs (Swift).").secret())
}

fn text(name: &str, help: &str) -> OptionSpec {
    OptionSpec::new(name, OptionType::TEXT, help)
}

fn path(name: &str, help: &str) -> OptionSpec {
    OptionSpec::new(name, OptionType::PATH, help)
}

fn choice(name: &str, choices: &[&str], help: &str) -> OptionSpec {
    OptionSpec::new(name, OptionType::CHOICE, help).choices(choices)
}

fn secs(name: &str, default: &str, help: &str) -> OptionSpec {
    OptionSpec::new(name, OptionType::INTEGER, help).default_json(default)
}
