// SPDX-License-Identifier: Apache-2.0
//! What the keys of `[nbd]` must be together.

use std::net::{IpAddr, SocketAddr};

use driver_api::{Error, Result};
use serde_json::Value as Json;

use super::{
    origin::{Origin, Origins, dotted},
    settings::{NbdSettings, NbdTls, NbdTlsClients},
    value::Wrong,
};

/// Checks the addresses of `nbd.listen`.
pub(super) fn addresses(value: Json) -> std::result::Result<Json, Wrong> {
    for text in value.as_array().into_iter().flatten().filter_map(Json::as_str) {
        if text.parse::<SocketAddr>().is_ok() {
            continue;
        }
        let remedy = match text.parse::<IpAddr>() {
            Ok(address) => format!("write \"{}\"", SocketAddr::new(address, 10809)),
            Err(_) => "write numbers with a port, such as \"192.0.2.1:10809\" or \"[::]:10809\"; \
                       names are not looked up"
                .to_owned(),
        };
        return Err(Wrong::new(format!("{text:?} is not an address with a port"), remedy));
    }
    Ok(value)
}

/// Checks that what TLS needs is there, and that nothing is there in vain.
pub(super) fn check_tls(nbd: &NbdSettings, origins: &Origins) -> Result<()> {
    let refuse = |key: &str, message: &str, remedy: &str| -> Result<()> {
        let path = ["nbd", key];
        let origin: Origin = origins.of(&path);
        let error: Error = origin.refuse(&dotted(&path), message);
        Err(error.remedy(remedy))
    };
    match (&nbd.tls_certificate, &nbd.tls_key) {
        (Some(_), None) => {
            return refuse(
                "tls_certificate",
                "there is no key for the certificate",
                "name the file of its key in nbd.tls_key",
            );
        }
        (None, Some(_)) => {
            return refuse(
                "tls_key",
                "there is no certificate for the key",
                "name the file of its certificate in nbd.tls_certificate",
            );
        }
        _ => {}
    }
    let clients = nbd.tls_clients;
    if nbd.tls_client_ca.is_none()
        && matches!(clients, Some(NbdTlsClients::Offer | NbdTlsClients::Require))
    {
        return refuse(
            "tls_clients",
            "without their authority, clients' certificates prove nothing",
            "name the file of the authority's certificate in nbd.tls_client_ca",
        );
    }
    if nbd.tls_certificate.is_some() {
        return Ok(());
    }
    if nbd.tls_client_ca.is_some() {
        return refuse(
            "tls_client_ca",
            "clients show certificates in TLS only, and the server has none for it",
            "name its files in nbd.tls_certificate and nbd.tls_key",
        );
    }
    if !nbd.listen.is_empty() && nbd.tls != NbdTls::Off {
        return refuse(
            "listen",
            "NBD over TCP needs a certificate for TLS",
            "name its files in nbd.tls_certificate and nbd.tls_key; or write nbd.tls = \"off\" \
             where everybody on the network may read and change everything",
        );
    }
    Ok(())
}
