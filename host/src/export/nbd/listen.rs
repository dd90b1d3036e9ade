// SPDX-License-Identifier: Apache-2.0
//! Sockets on which clients arrive: made here, or handed over by whoever started the host.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use driver_api::{Error, ErrorKind, Result};
use rustix::net::{
    AddressFamily, SocketAddrAny, SocketAddrUnix, SocketFlags, SocketType, acceptfrom_with,
    getpeername, getsockname, sockopt,
};

use crate::access::{Address, Peer};

/// A client that is silent for so long is asked whether it is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// How long until it is asked again.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// How often until it counts as gone.
const KEEPALIVE_COUNT: u32 = 4;

/// Where clients find a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListenAddress {
    /// The path of a unix socket.
    Unix(PathBuf),
    /// An address of the network.
    Tcp(SocketAddr),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

/// A socket on which clients arrive. A unix socket that was made here goes with it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    address: ListenAddress,
    _made: Option<Made>,
}

/// A unix socket that was made here, with its device and inode.
#[derive(Debug)]
struct Made {
    path: PathBuf,
    id: (u64, u64),
}

impl Listener {
    /// Makes a unix socket with these permission bits. One on which nobody answers any more is replaced.
    pub fn unix(path: &Path, mode: u32) -> Result<Self> {
        refuse_if_taken(path)?;
        let (listener, id) = bind(path, mode).map_err(|error| {
            Error::from_io("the NBD socket cannot be made", &error)
                .with("socket", path.display())
                .remedy("see that its directory exists and is writable, and that the path is under 100 bytes")
        })?;
        let address = ListenAddress::Unix(path.to_owned());
        let made = Made { path: path.to_owned(), id };
        Ok(Self { socket: listener.into(), address, _made: Some(made) })
    }

    /// Listens on an address of the network; port zero takes any that is free.
    pub fn tcp(address: SocketAddr) -> Result<Self> {
        let failed = |error: io::Error| {
            Error::from_io("NBD clients cannot be awaited on this address", &error)
                .with("address", address)
                .remedy("see `ss -ltnp` for who has it, or choose another in nbd.listen")
        };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = ListenAddress::Tcp(listener.local_addr().map_err(failed)?);
        Ok(Self { socket: listener.into(), address, _made: None })
    }

    /// Takes a socket over that is bound and listens already.
    pub fn adopted(socket: OwnedFd) -> Result<Self> {
        let failed = |error: rustix::io::Errno| {
            Error::from_io("the socket handed over cannot be used", &error.into())
                .remedy("hand over a listening stream socket, unix or TCP")
        };
        let refused = |why: &str| {
            Error::new(ErrorKind::INVALID_ARGUMENT, format!("the socket handed over {why}"))
                .remedy("hand over a listening stream socket, unix or TCP")
        };
        if sockopt::socket_type(&socket).map_err(failed)? != SocketType::STREAM {
            return Err(refused("is no stream socket"));
        }
        if !sockopt::socket_acceptconn(&socket).map_err(failed)? {
            return Err(refused("does not listen"));
        }
        let name = getsockname(&socket).map_err(failed)?;
        let address = match sockopt::socket_domain(&socket).map_err(failed)? {
            AddressFamily::UNIX => {
                let name = SocketAddrUnix::try_from(name).map_err(failed)?;
                ListenAddress::Unix(unix_path(&name))
            }
            AddressFamily::INET | AddressFamily::INET6 => {
                ListenAddress::Tcp(name.try_into().map_err(failed)?)
            }
            _ => return Err(refused("is neither unix nor TCP")),
        };
        rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
        Ok(Self { socket, address, _made: None })
    }

    /// Where clients find it.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Takes a client that waits; `WouldBlock` if none does.
    pub(super) fn accept(&self) -> io::Result<(OwnedFd, Peer)> {
        let (socket, _) = acceptfrom_with(&self.socket, SocketFlags::CLOEXEC)?;
        let peer = prepare(&socket)?;
        Ok((socket, peer))
    }
}

/// Sets a client's socket up, and finds out who it is.
pub(super) fn prepare(socket: &OwnedFd) -> io::Result<Peer> {
    let address = match sockopt::socket_domain(socket)? {
        AddressFamily::UNIX => {
            let user = sockopt::socket_peercred(socket).ok();
            Address::Unix { uid: user.map(|user| user.uid.as_raw()) }
        }
        _ => {
            sockopt::set_tcp_nodelay(socket, true)?;
            sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
            sockopt::set_socket_keepalive(socket, true)?;
            let name: Option<SocketAddrAny> = getpeername(socket)?;
            let name = name.ok_or(rustix::io::Errno::NOTCONN)?;
            Address::Tcp(name.try_into()?)
        }
    };
    Ok(Peer { address, certificate: None })
}

fn unix_path(name: &SocketAddrUnix) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    match (name.path_bytes(), name.abstract_name()) {
        (Some(path), _) => PathBuf::from(std::ffi::OsStr::from_bytes(path)),
        (None, Some(name)) => PathBuf::from(format!("@{}", String::from_utf8_lossy(name))),
        (None, None) => PathBuf::new(),
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl From<Listener> for OwnedFd {
    /// The socket alone: one that was made here is not found any more.
    fn from(listener: Listener) -> Self {
        listener.socket
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Another server may have taken the path over; its socket is not ours to remove.
        if id(&self.path).is_ok_and(|id| id == self.id)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, socket = %self.path.display(), "the NBD socket stays");
        }
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Makes the socket beside its place and moves it there, so that nobody sees it with wrong permissions.
fn bind(path: &Path, mode: u32) -> io::Result<(UnixListener, (u64, u64))> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path)?;
    listener.set_nonblocking(true)?;
    Ok((listener, id(path)?))
}

fn refuse_if_taken(path: &Path) -> Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Error::from_io("the NBD socket cannot be looked at", &error)
                .with("socket", path.display()));
        }
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Err(Error::new(ErrorKind::ALREADY_EXISTS, "the NBD socket's path is no socket")
            .with("socket", path.display())
            .remedy("choose another path, or remove what is there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        // A listener that is busy, or not ours to talk to, is a listener.
        _ => Err(Error::new(ErrorKind::IN_USE, "somebody answers on the NBD socket")
            .with("socket", path.display())
            .remedy("stop the other server, or choose another path")),
    }
}
