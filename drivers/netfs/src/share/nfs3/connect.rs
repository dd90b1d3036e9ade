// SPDX-License-Identifier: Apache-2.0
//! From a configuration to a mounted export: ports, the MOUNT protocol, the directory, the server's limits.

use std::{io, net::SocketAddr, sync::Arc, time::Instant};

use driver_api::{Error, ErrorKind};
use nfs3_client::{MountClient, MountError, Nfs3Client, PortmapError, PortmapperClient};
use nfs3_types::{
    mount::{self, dirpath},
    nfs3::{self, FSINFO3args, Nfs3Result, PATHCONF3args, nfs_fh3},
    portmap::{IPPROTO_TCP, PMAP_PORT},
    rpc::{auth_unix, opaque_auth},
    xdr_codec::Opaque,
};
use tokio::net::{TcpSocket, TcpStream};

use super::{
    Nfs3,
    mux::Mux,
    rpc::{Wire, fault_of},
    status::{not_mounted, refused},
};
use crate::{
    config::Place,
    counters::Figures,
    error::{Fault, broken_server, invalid},
    names::FileName,
    share::{Kind, Share as _, Traits},
};

/// The most that is read or written by one call: servers offer up to 64 MiB, and gain nothing by it.
const MOST: u32 = 1 << 20;
/// Source ports that a server takes for a sign of root.
const RESERVED: std::ops::RangeInclusive<u16> = 600..=1023;

/// Mounts an export.
pub(crate) async fn mount(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Nfs3, Fault> {
    let address = resolve(place, until).await?;
    let credential = credential(place);
    let root = match ask_mount(place, address, figures, until).await {
        Ok(mut client) => {
            let path = dirpath(Opaque::borrowed(place.share.as_bytes()));
            match client.wire().mnt(path).await {
                Ok(mounted) => nfs_fh3 { data: mounted.fhandle.0 },
                Err(MountError::Denied(status)) => {
                    // Some servers call an export that they do not have one that is not allowed.
                    let known = client.wire().export().await.ok().map(listed_exports);
                    return Err(not_mounted(status, &place.share, known.as_deref()));
                }
                Err(MountError::Rpc(error)) => return Err(fault_of(error)),
            }
        }
        Err(fault) => return Err(fault),
    };
    let port = match place.port {
        Some(port) => port,
        None => {
            ask_portmapper(place, address, nfs3::PROGRAM, nfs3::VERSION, figures, until).await?
        }
    };
    let mux = connect(place, address, port, figures, until).await?;
    let traits = probe(&mux, &credential, &root, until).await?;
    let mut share =
        Nfs3 { mux, credential, directory: root, traits, place: place.clone(), address };
    for component in &place.path {
        share.directory = enter(&share, component, until).await?;
    }
    Ok(share)
}

/// The exports that a server offers, each with the clients it is offered to.
pub(crate) async fn exports(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<(String, Vec<String>)>, Fault> {
    let address = resolve(place, until).await?;
    let mut client = ask_mount(place, address, figures, until).await?;
    client.wire().export().await.map(listed_exports).map_err(fault_of)
}

fn listed_exports(listed: mount::exports<'_, '_>) -> Vec<(String, Vec<String>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    listed
        .into_inner()
        .iter()
        .map(|export| {
            let clients = export.ex_groups.0.iter().map(|name| text(&name.0));
            (text(&export.ex_dir.0), clients.collect())
        })
        .collect()
}

/// Tells the server that the export is not used here any more.
pub(super) async fn unmount(share: &Nfs3, until: Instant) -> Result<(), Fault> {
    let place = &share.place;
    let figures = Arc::new(Figures::default());
    let mut client = ask_mount(place, share.address, &figures, until).await?;
    let path = dirpath(Opaque::borrowed(place.share.as_bytes()));
    client.wire().umnt(path).await.map_err(fault_of)
}

/// A connection to the MOUNT service.
struct Asked {
    mux: Mux,
    credential: opaque_auth<'static>,
    until: Instant,
}

impl Asked {
    fn wire(&mut self) -> MountClient<Wire<'_>> {
        let wire = Wire::new(&self.mux, self.until);
        MountClient::new_with_auth(wire, self.credential.clone(), opaque_auth::default())
    }
}

async fn ask_mount(
    place: &Place,
    address: SocketAddr,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Asked, Fault> {
    let port = match place.mount_port {
        Some(port) => port,
        None => {
            ask_portmapper(place, address, mount::PROGRAM, mount::VERSION, figures, until).await?
        }
    };
    let mux = connect(place, address, port, figures, until).await?;
    Ok(Asked { mux, credential: credential(place), until })
}

async fn ask_portmapper(
    place: &Place,
    address: SocketAddr,
    program: u32,
    version: u32,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<u16, Fault> {
    let mux = connect(place, address, PMAP_PORT, figures, until).await.map_err(|fault| {
        let error = fault.told("the server's portmapper cannot be asked for ports");
        error.remedy(
            "give `port` and `mount_port`, or let the server's portmapper (port 111) be reached",
        )
    })?;
    let mut client = PortmapperClient::new(Wire::new(&mux, until));
    match client.getport(program, version, IPPROTO_TCP).await {
        Ok(port) => Ok(port),
        Err(PortmapError::Rpc(error)) => Err(fault_of(error)),
        Err(PortmapError::ProgramUnavailable) => Err(Fault::Refused(
            Error::new(
                ErrorKind::UNAVAILABLE,
                "the server's portmapper knows no NFS version 3 over TCP",
            )
            .with("program", program)
            .remedy("start the NFS service on the server, or give `port` and `mount_port`"),
        )),
        Err(PortmapError::InvalidPortValue(port)) => {
            Err(broken_server(format!("the server's portmapper named port {port}")).into())
        }
    }
}

fn credential(place: &Place) -> opaque_auth<'static> {
    opaque_auth::auth_unix(&auth_unix {
        stamp: 0,
        machinename: Opaque::borrowed(b"novastor"),
        uid: place.uid,
        gid: place.gid,
        gids: Vec::new(),
    })
}

async fn resolve(place: &Place, until: Instant) -> Result<SocketAddr, Fault> {
    let looking = tokio::net::lookup_host((place.server.as_str(), 0));
    let found = match tokio::time::timeout_at(until.into(), looking).await {
        Ok(found) => found.map(|mut all| all.next()),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    };
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(unknown_server(place, "it has no address")),
        Err(error) => Err(unknown_server(place, &error.to_string())),
    }
}

fn unknown_server(place: &Place, why: &str) -> Fault {
    let text = format!("the server's name cannot be resolved: {why}");
    let error = Error::new(ErrorKind::UNAVAILABLE, text).with("server", &place.server);
    Fault::Refused(error.remedy("check `server`, and this host's name service"))
}

async fn connect(
    place: &Place,
    mut address: SocketAddr,
    port: u16,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Mux, Fault> {
    address.set_port(port);
    let opening = open(address, place.reserved_port);
    let opened = match tokio::time::timeout_at(until.into(), opening).await {
        Ok(opened) => opened,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    };
    let stream = opened.map_err(|error| unreachable(address, &error))?;
    stream.set_nodelay(true).map_err(|error| unreachable(address, &error))?;
    Ok(Mux::new(stream, place.silence, Arc::clone(figures)))
}

async fn open(address: SocketAddr, reserved: bool) -> io::Result<TcpStream> {
    let socket = || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    if !reserved {
        return socket()?.connect(address).await;
    }
    let count = RESERVED.end() - RESERVED.start() + 1;
    let first = fastrand::u16(0..count);
    for step in 0..count {
        let socket = socket()?;
        let port = RESERVED.start() + (first + step) % count;
        let any: std::net::IpAddr = if address.is_ipv4() {
            std::net::Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        match socket.bind((any, port).into()) {
            Ok(()) => match socket.connect(address).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                connected => return connected,
            },
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port from 600 to 1023 is free"))
}

fn unreachable(address: SocketAddr, error: &io::Error) -> Fault {
    let (kind, remedy) = match error.kind() {
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PERMISSION_DENIED,
            "ports below 1024 need CAP_NET_BIND_SERVICE: give it to the host, or set `reserved_port = false`",
        ),
        _ => (
            ErrorKind::UNAVAILABLE,
            "look whether the server runs and the port is right; the mount comes back by itself",
        ),
    };
    let failed = Error::new(kind, format!("cannot connect to the server: {error}"));
    Fault::Refused(failed.with("address", address).remedy(remedy))
}

/// Asks the server for its limits.
async fn probe(
    mux: &Mux,
    credential: &opaque_auth<'static>,
    root: &nfs_fh3,
    until: Instant,
) -> Result<Traits, Fault> {
    let client = || {
        Nfs3Client::new_with_auth(Wire::new(mux, until), credential.clone(), opaque_auth::default())
    };
    let info = client().fsinfo(&FSINFO3args { fsroot: root.clone() }).await.map_err(fault_of)?;
    let info = match info {
        Nfs3Result::Ok(info) => info,
        Nfs3Result::Err((status, _)) => return Err(refused(status, "ask for the limits", "")),
    };
    let conf =
        client().pathconf(&PATHCONF3args { object: root.clone() }).await.map_err(fault_of)?;
    let (max_name, case_insensitive) = match conf {
        Nfs3Result::Ok(conf) => (conf.name_max, conf.case_insensitive),
        Nfs3Result::Err((status, _)) => return Err(refused(status, "ask for the limits", "")),
    };
    Ok(Traits {
        protocol: "NFSv3",
        max_read: clamped(info.rtmax),
        max_write: clamped(info.wtmax),
        max_file_size: info.maxfilesize.min(i64::MAX as u64),
        max_name,
        case_insensitive,
    })
}

/// A server's limit, within ours; whole pages where it allows one.
fn clamped(most: u32) -> u32 {
    let most = most.clamp(1, MOST);
    if most > 4096 { most / 4096 * 4096 } else { most }
}

/// Enters a directory; a symbolic link is none.
async fn enter(share: &Nfs3, component: &FileName, until: Instant) -> Result<nfs_fh3, Fault> {
    let found = match share.look(component, until).await {
        Ok(found) => found,
        Err(Fault::NotFound) => {
            let error = Error::new(ErrorKind::NOT_FOUND, "the share has no such directory");
            return Err(error
                .with("path", component)
                .remedy("make it on the server, or correct `path`")
                .into());
        }
        Err(fault) => return Err(fault),
    };
    if found.facts.kind != Kind::Directory {
        let error =
            invalid("a component of `path` is no directory; symbolic links are not followed");
        return Err(error
            .with("path", component)
            .remedy("name the directory itself in `path`")
            .into());
    }
    let handle = super::handle_of(&found.handle)?.clone();
    Ok(handle)
}

#[cfg(test)]
mod tests {
    use super::clamped;

    #[test]
    fn what_a_server_offers_is_brought_within_reason() {
        assert_eq!(clamped(64 << 20), 1 << 20);
        assert_eq!(clamped(1_044_480), 1_044_480);
        assert_eq!(clamped(65_537), 65_536);
        assert_eq!(clamped(1000), 1000);
        assert_eq!(clamped(0), 1);
    }
}
