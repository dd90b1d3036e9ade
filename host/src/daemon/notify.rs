// SPDX-License-Identifier: Apache-2.0
//! Tells systemd how far the host is (`Type=notify`).

use std::os::{
    linux::net::SocketAddrExt,
    unix::net::{SocketAddr, UnixDatagram},
};

pub(super) fn ready() {
    send("READY=1");
}

pub(super) fn stopping() {
    send("STOPPING=1");
}

fn send(word: &str) {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let place = place.to_string_lossy();
    let sent = match place.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(place.as_ref()),
    }
    .and_then(|address| UnixDatagram::unbound()?.send_to_addr(word.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!("systemd does not hear `{word}`: {error}");
    }
}
