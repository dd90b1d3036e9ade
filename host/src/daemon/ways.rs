// SPDX-License-Identifier: Apache-2.0
//! The ways in: which sockets the host opens, or was given, and with which TLS.

use std::{path::PathBuf, sync::Arc};

use driver_api::{Error, ErrorKind, Result};
use tokio::net::UnixListener;

use super::{activation::Activated, make_folder};
use crate::{
    api,
    config::{NbdSettings, NbdTls, NbdTlsClients, Settings},
    export::nbd::{
        ClientCertificates, ListenAddress, Listener, Tls, TlsFiles, TlsKeys, TlsSettings,
    },
};

/// How clients come in.
pub(super) enum Ways {
    /// By the sockets that were given, and the configured ones in place of those that were not.
    Sockets(Activated),
    /// By none.
    None,
}

/// The open sockets.
pub(super) struct Doors {
    pub(super) nbd: Vec<Listener>,
    pub(super) api: Option<ApiDoor>,
}

/// The management API's socket.
pub(super) struct ApiDoor {
    pub(super) listener: UnixListener,
    /// The file that goes with it.
    pub(super) made: Option<PathBuf>,
}

impl Ways {
    /// Opens what is to be opened.
    pub(super) fn open(self, settings: &Settings, tls: &TlsSettings) -> Result<Doors> {
        let Self::Sockets(given) = self else { return Ok(Doors { nbd: Vec::new(), api: None }) };
        let mut nbd = given.nbd;
        if nbd.is_empty() {
            let mode = settings.nbd.mode.unwrap_or(settings.api.mode);
            make_folder(&settings.nbd.socket)?;
            nbd.push(Listener::unix(&settings.nbd.socket, mode)?);
            for address in &settings.nbd.listen {
                nbd.push(Listener::tcp(*address)?);
            }
        }
        let tcp = nbd.iter().find(|one| matches!(one.address(), ListenAddress::Tcp(_)));
        if let (Some(tcp), None, NbdTls::Offer | NbdTls::Require) =
            (tcp, &tls.keys, settings.nbd.tls)
        {
            // The configured addresses were checked with the configuration; this one was handed over.
            return Err(Error::new(
                ErrorKind::INVALID_ARGUMENT,
                "NBD over TCP needs a certificate for TLS",
            )
            .with("address", tcp.address())
            .remedy(
                "name its files in nbd.tls_certificate and nbd.tls_key, or set nbd.tls = \"off\"",
            ));
        }
        let api = match given.api {
            Some(listener) => {
                let listener = UnixListener::from_std(listener).map_err(|error| {
                    Error::from_io("the API's socket that was handed over cannot be used", &error)
                })?;
                ApiDoor { listener, made: None }
            }
            None => {
                let socket = &settings.api.socket;
                make_folder(socket)?;
                let listener = api::listen(socket, settings.api.mode)?;
                ApiDoor { listener, made: Some(socket.clone()) }
            }
        };
        Ok(Doors { nbd, api: Some(api) })
    }
}

/// The files of TLS, if there are any.
pub fn tls_files(nbd: &NbdSettings) -> Option<TlsFiles> {
    let clients = match (nbd.tls_clients, &nbd.tls_client_ca) {
        (Some(NbdTlsClients::None), _) | (None, None) => ClientCertificates::None,
        (Some(NbdTlsClients::Offer), _) => ClientCertificates::Offer,
        (Some(NbdTlsClients::Require), _) | (None, Some(_)) => ClientCertificates::Require,
    };
    Some(TlsFiles {
        certificate: nbd.tls_certificate.clone()?,
        key: nbd.tls_key.clone()?,
        client_ca: nbd.tls_client_ca.clone(),
        clients,
    })
}

/// Who gets TLS: over TCP as configured, on this machine whoever asks.
pub(super) fn tls(nbd: &NbdSettings) -> Result<TlsSettings> {
    let keys = tls_files(nbd).map(TlsKeys::load).transpose()?.map(Arc::new);
    let tcp = match nbd.tls {
        NbdTls::Off => Tls::Off,
        NbdTls::Offer => Tls::Offer,
        NbdTls::Require => Tls::Require,
    };
    let unix = if keys.is_some() && tcp != Tls::Off { Tls::Offer } else { Tls::Off };
    Ok(TlsSettings { keys, unix, tcp })
}
