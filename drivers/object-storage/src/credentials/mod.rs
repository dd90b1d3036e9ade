// SPDX-License-Identifier: Apache-2.0
//! Where credentials come from. Those that expire are fetched anew when it is time: see [`lease`].

mod aws;
mod entra;
mod exchange;
mod google;
mod lease;
mod machine;
mod profile;
mod sts;

use std::{fs, sync::Arc};

use driver_api::{Error, Result};
use object_store::{
    StaticCredentialProvider,
    azure::{AzureAccessKey, AzureCredential, AzureCredentialProvider, split_sas},
    client::HttpClient,
    gcp::{GcpSigningCredential, GoogleCloudStorageBuilder, ServiceAccountKey},
};

use crate::{
    account::Credential,
    client::Shared,
    config::{Config, Credentials, Kind},
    error::{self, invalid},
};
use exchange::Desk;
use google::{Bearer, RsaKey, ServiceAccount};
use lease::Leased;

/// The key of Azurite's account, which Microsoft publishes.
pub(crate) const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Who asks, by the options. Asks no server anything yet.
pub(crate) fn find(config: &Config, client: &HttpClient) -> Result<Credential> {
    match config.kind {
        Kind::S3 => {
            aws::find(config, client, &|name| std::env::var(name).ok()).map(Credential::Aws)
        }
        Kind::Azure => azure(config, client).map(Credential::Azure),
        Kind::Gcs => gcs(config, client),
        Kind::Swift => crate::swift::open(config, client).map(Credential::Swift),
    }
}

/// What the operator is to do when the store does not take the keys any more, or never did.
pub(crate) fn remedy(config: &Config) -> String {
    match config.kind {
        Kind::S3 => aws::remedy(config),
        Kind::Azure if config.sas.is_some() => {
            "have another shared access signature made, and set `sas`; it must allow services, resource types and what is to be done".to_owned()
        }
        Kind::Azure if config.azure_key().is_some() => {
            "correct `account` and `account_key`".to_owned()
        }
        Kind::Azure => "look whether the identity has a role for data, such as Storage Blob Data Contributor, and `account` is right".to_owned(),
        Kind::Gcs => "correct `service_account`; its key may have been deleted".to_owned(),
        Kind::Swift if config.application_credential_id.is_some() => {
            "correct `application_credential_id` and `application_credential_secret`; it may have been deleted or have expired".to_owned()
        }
        Kind::Swift => "correct `user` and `password`".to_owned(),
    }
}

/// When the backend's shared access signature expired (Azure); `None` if it has not, or there is none.
pub(crate) fn expired(config: &Config) -> Option<String> {
    let pairs = split_sas(config.sas.as_deref()?.trim()).ok()?;
    let (_, ends) = pairs.into_iter().find(|(name, _)| name == "se")?;
    let left = exchange::until(&ends)?;
    left.is_zero().then_some(ends)
}

/// Our errors, through object_store's interface.
fn as_theirs(error: Error) -> object_store::Error {
    object_store::Error::Generic { store: "credentials", source: Box::new(error) }
}

fn azure(config: &Config, client: &HttpClient) -> Result<AzureCredentialProvider> {
    let fixed = |credential| Arc::new(StaticCredentialProvider::new(credential)) as _;
    if let Some(sas) = &config.sas {
        // What their error says could hold the signature.
        let pairs = split_sas(sas.trim().trim_start_matches('?'))
            .ok()
            .filter(|pairs| pairs.iter().any(|(name, _)| name == "sig"))
            .ok_or_else(|| {
                invalid("`sas` is no shared access signature: it has no sig=")
                    .remedy("copy it as a whole, such as sv=...&ss=b&...&sig=...")
            })?;
        return Ok(fixed(AzureCredential::SASToken(pairs)));
    }
    if let Some(key) = config.azure_key() {
        let key = AzureAccessKey::try_new(key.trim()).map_err(|_| {
            invalid("`account_key` is not base64")
                .remedy("copy it as a whole from the account's keys")
        })?;
        return Ok(fixed(AzureCredential::AccessKey(key)));
    }
    if config.credentials == Some(Credentials::Instance) {
        return Ok(Arc::new(Leased::new(entra::Machine {
            desk: Desk::near(config, machine::MACHINE)?,
            base: config.instance_metadata.clone().unwrap_or_else(|| machine::METADATA.to_owned()),
            client_id: config.client_id.clone(),
        })));
    }
    let text = |option: &Option<String>| option.as_deref().unwrap_or_default().trim().to_owned();
    Ok(Arc::new(Leased::new(entra::Application {
        desk: Desk::new(client, config, entra::WHOM),
        authority: config.authority_host.clone().unwrap_or_else(|| entra::AUTHORITY.to_owned()),
        tenant_id: text(&config.tenant_id),
        client_id: text(&config.client_id),
        proof: match &config.token_file {
            Some(path) => entra::Proof::File(path.into()),
            None => entra::Proof::Secret(text(&config.client_secret)),
        },
    })))
}

fn gcs(config: &Config, client: &HttpClient) -> Result<Credential> {
    let json = match (&config.service_account_json, &config.service_account) {
        (Some(json), _) => json.clone(),
        (None, Some(path)) => fs::read_to_string(path).map_err(|error| {
            Error::from_io(format!("`service_account` cannot be read: {error}"), &error)
                .with("service_account", path)
                .remedy("correct the path, or make the file readable for the host")
        })?,
        (None, None) => return gcs_default(client),
    };
    let account = ServiceAccount::read(&json)?;
    let key = ServiceAccountKey::new(Box::new(RsaKey::from_pem(&account.private_key)?));
    let signing = Arc::new(StaticCredentialProvider::new(GcpSigningCredential {
        email: account.client_email.clone(),
        private_key: Some(key),
    }));
    let bearer = Bearer {
        desk: Desk::new(client, config, google::WHOM),
        key: RsaKey::from_pem(&account.private_key)?,
        account,
    };
    Ok(Credential::Gcs(Arc::new(Leased::new(bearer)), signing))
}

/// The application's default credentials, as Google's own programs find them.
fn gcs_default(client: &HttpClient) -> Result<Credential> {
    let store = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name("credentials")
        .with_http_connector(Shared(client.clone()))
        .build()
        .map_err(|error| {
            error::of_store(&error, "the application's default credentials cannot be used")
                .remedy("set `service_account`, or correct GOOGLE_APPLICATION_CREDENTIALS")
        })?;
    Ok(Credential::Gcs(Arc::clone(store.credentials()), Arc::clone(store.signing_credentials())))
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
