// SPDX-License-Identifier: Apache-2.0
//! `novastor export connect`: a client's way to the host through standard input and output.

use std::os::{
    fd::{AsFd, OwnedFd},
    unix::net::UnixStream,
};

use driver_api::{Error, ErrorKind, Result};

use super::client::{Client, part};
use crate::{
    api::types::{ExportView, StatusView},
    export::relay,
};

/// Joins this process's input and output to the host's NBD socket until the host ends the conversation.
pub(super) async fn run(client: &Client, name: Option<String>) -> Result<()> {
    if let Some(name) = name {
        let export: ExportView = client.get(&format!("/v1/exports/{}", part(&name))).await?;
        if export.state != "ready" {
            let why = format!("export `{name}` is {}", export.state);
            return Err(Error::new(ErrorKind::UNAVAILABLE, why).remedy("novastor volume list"));
        }
    }
    let place = client.get::<StatusView>("/v1/status").await?.nbd_socket;
    if place.is_empty() {
        return Err(Error::new(ErrorKind::UNSUPPORTED, "the host has no unix socket for NBD")
            .remedy("connect to one of its addresses: novastor status"));
    }
    let failed = |error: std::io::Error| {
        Error::from_io("the host's NBD socket cannot be reached", &error)
            .with("socket", &place)
            .remedy("run it as a user of the socket's group")
    };
    let socket = UnixStream::connect(&place).map_err(failed)?;
    let own = |fd: std::io::Result<OwnedFd>| {
        fd.map_err(|error| Error::from_io("standard input and output must be open", &error))
    };
    let input = own(std::io::stdin().as_fd().try_clone_to_owned())?;
    let output = own(std::io::stdout().as_fd().try_clone_to_owned())?;
    let joined = tokio::task::spawn_blocking(move || relay::join(input, output, socket)).await;
    let joined = joined.map_err(|panic| Error::new(ErrorKind::INTERNAL, panic.to_string()))?;
    joined.map_err(|error| Error::from_io("the conversation with the host broke off", &error))
}
