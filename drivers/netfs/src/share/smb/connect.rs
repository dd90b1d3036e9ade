// SPDX-License-Identifier: Apache-2.0
//! From a configuration to a share that serves: versions, login, signing, encryption, the directory, the limits.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use driver_api::{Error, ErrorKind};
use smb2::{
    client::{
        connection::{Connection, NegotiatedParams},
        session::Session,
        tree::Tree,
    },
    crypto::encryption::Cipher,
    msg::{
        close::CloseRequest,
        create::CreateDisposition,
        ioctl::{FSCTL_VALIDATE_NEGOTIATE_INFO, IoctlRequest, SMB2_0_IOCTL_IS_FSCTL},
        logoff::LogoffRequest,
        query_info::InfoType,
        tree_disconnect::TreeDisconnectRequest,
    },
    types::{
        Command, Dialect, FileId, SessionId,
        flags::{Capabilities, FileAccessMask},
        status::NtStatus,
    },
};

use tokio::net::TcpStream;

use super::{
    Smb,
    hello::{Hello, Wire, hash_of, recalled},
    link::Link,
    messages::{
        ALL, ATTRIBUTES, DIRECTORY, Fields, HEADER, How, SHARE_ALL, VOLUME, create, facts, output,
        query,
    },
    mux::{Mux, Start},
    seal::Seal,
    socket::Socket,
    status::{fault_of, not_connected, not_logged_in, refused},
};
use crate::{
    config::{Login, Place},
    counters::Figures,
    error::{Fault, internal, invalid},
    share::{Kind, Traits, Verifier},
};

/// The service's port.
const PORT: u16 = 445;
/// The most that is read or written by one call: servers offer 8 MiB, and gain nothing by it.
const MOST: u32 = 1 << 20;
/// The most where one call has one credit.
const MOST_OF_ONE_CREDIT: u32 = 64 << 10;
/// The server says that names differ in case alone.
const CASE_SENSITIVE: u32 = 1;

/// What a mount leaves behind for the one that takes its place.
///
/// The server may hold the files of a connection that has ended for minutes, and opens exclude each other. So the next
/// login names the one before it, and the server ends that at once, with everything it has open.
#[derive(Default)]
pub(crate) struct Past(AtomicU64);

/// Mounts a share.
pub(crate) async fn mount(
    place: &Place,
    figures: &Arc<Figures>,
    past: &Arc<Past>,
    until: Instant,
) -> Result<Smb, Fault> {
    match tokio::time::timeout_at(until.into(), mount_whenever(place, figures, past, until)).await {
        Ok(mounted) => mounted,
        Err(_) => {
            let why = "the server did not answer while the share was mounted".into();
            Err(Fault::TimedOut { sent: false, why })
        }
    }
}

async fn mount_whenever(
    place: &Place,
    figures: &Arc<Figures>,
    past: &Arc<Past>,
    until: Instant,
) -> Result<Smb, Fault> {
    let login = place.login.as_ref().ok_or_else(|| internal("a share without a login"))?;
    let dialects = dialects(place)?;
    let Greeted { mut connection, hello, socket } = greet(place, &dialects, figures, until).await?;
    let params = connection.params().ok_or_else(|| internal("no version was agreed on"))?;
    if !dialects.contains(&u16::from(params.dialect)) {
        return Err(too_old(params.dialect, place).into());
    }
    let cipher = cipher(&params);
    if place.require_encryption && cipher.is_none() {
        return Err(cannot_encrypt("the server").into());
    }
    connection.set_previous_session_id(SessionId(past.0.load(Ordering::Acquire)));
    let session = log_in(&mut connection, login).await?;
    past.0.store(session.session_id.0, Ordering::Release);
    if place.require_encryption {
        encrypt(&mut connection, &session, cipher)?;
    }
    let tree = match Tree::connect(&mut connection, &place.share).await {
        Ok(tree) => tree,
        Err(smb2::Error::Protocol { status, .. }) => {
            return Err(not_connected(status, &place.share));
        }
        Err(error) => return Err(untrusted(&error)),
    };
    if tree.encrypt_data && !connection.should_encrypt() {
        encrypt(&mut connection, &session, cipher)?;
    }
    let encrypted = connection.should_encrypt();
    figures.encrypted(encrypted);
    let seal = Seal::new(&session, encrypted.then(|| cipher.unwrap_or(Cipher::Aes128Ccm)))?;
    let mux = take_over(connection, &socket, seal, place.silence, figures).await?;
    let link = Arc::new(Link::new(mux, tree.tree_id));
    if params.dialect != Dialect::Smb3_1_1 {
        validate(&link, &hello, until).await?;
    }
    let probed = probe(&link, place, until).await?;
    let one_credit = !params.capabilities.contains(Capabilities::LARGE_MTU);
    let most = if one_credit { MOST_OF_ONE_CREDIT } else { MOST };
    let traits = Traits {
        protocol: shown(params.dialect, encrypted),
        max_read: params.max_read_size.min(most),
        max_write: params.max_write_size.min(most),
        max_file_size: i64::MAX as u64,
        max_name: probed.max_name,
        case_insensitive: probed.case_insensitive,
        // By the share mode of a writer's open.
        exclusive: true,
        fell_back: None,
    };
    tracing::debug!(
        mount = place.name,
        protocol = traits.protocol,
        cipher = ?cipher.filter(|_| encrypted),
        "logged in"
    );
    Ok(Smb {
        link,
        directory: path(place),
        fsid: probed.fsid,
        life: Verifier(fastrand::u64(..).to_be_bytes()),
        traits,
        session: session.session_id.0,
        past: Arc::clone(past),
    })
}

/// What the server has shared, by its own list: names and comments.
pub(crate) async fn shares(
    place: &Place,
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Vec<(String, String)>, Fault> {
    let asking = async {
        let login = place.login.as_ref().ok_or_else(|| internal("a share without a login"))?;
        let Greeted { mut connection, .. } =
            greet(place, &dialects(place)?, figures, until).await?;
        let params = connection.params().ok_or_else(|| internal("no version was agreed on"))?;
        let session = log_in(&mut connection, login).await?;
        if place.require_encryption {
            encrypt(&mut connection, &session, cipher(&params))?;
        }
        let listed = smb2::client::list_shares(&mut connection).await;
        connection.mark_dead();
        match listed {
            Ok(listed) => Ok(listed.into_iter().map(|share| (share.name, share.comment)).collect()),
            Err(smb2::Error::Protocol { status, .. }) => {
                Err(refused(status, "ask for the list of shares", ""))
            }
            Err(error) => Err(untrusted(&error)),
        }
    };
    match tokio::time::timeout_at(until.into(), asking).await {
        Ok(listed) => listed,
        Err(_) => {
            let why = "the server did not tell its shares".into();
            Err(Fault::TimedOut { sent: false, why })
        }
    }
}

/// Ends another login of the same user, wherever it came from: the server closes every file that it has open before this
/// returns, and refuses whatever comes of it later. A login that is over already, or another user's, stays what it is.
pub(crate) async fn end_session(
    place: &Place,
    figures: &Arc<Figures>,
    session: u64,
    until: Instant,
) -> Result<(), Fault> {
    let ending = async {
        let login = place.login.as_ref().ok_or_else(|| internal("a share without a login"))?;
        let Greeted { mut connection, .. } =
            greet(place, &dialects(place)?, figures, until).await?;
        connection.set_previous_session_id(SessionId(session));
        let logged_in = log_in(&mut connection, login).await;
        connection.mark_dead();
        logged_in.map(drop)
    };
    match tokio::time::timeout_at(until.into(), ending).await {
        Ok(ended) => ended,
        Err(_) => {
            let why = "the server did not end the other host's login".into();
            Err(Fault::TimedOut { sent: true, why })
        }
    }
}

/// Tells the server that the share is not used here any more.
pub(super) async fn unmount(share: &Smb, until: Instant) -> Result<(), Fault> {
    let link = &share.link;
    let left = link.call(Command::TreeDisconnect, &TreeDisconnectRequest, 1, until).await;
    let out = link.call(Command::Logoff, &LogoffRequest, 1, until).await;
    link.end();
    left?;
    out?;
    // It has ended in good order.
    share.past.0.store(0, Ordering::Release);
    Ok(())
}

/// The directory of the volumes, as the protocol writes paths.
fn path(place: &Place) -> String {
    let components: Vec<&str> = place.path.iter().map(crate::names::FileName::as_str).collect();
    components.join("\\")
}

/// The versions that may be offered, as the protocol numbers them.
pub(super) fn dialects(place: &Place) -> Result<Vec<u16>, Fault> {
    let number = |version: &String| match version.as_str() {
        "2.1" => Some(Dialect::Smb2_1),
        "3.0" => Some(Dialect::Smb3_0),
        "3.0.2" => Some(Dialect::Smb3_0_2),
        "3.1.1" => Some(Dialect::Smb3_1_1),
        _ => None,
    };
    let all = place.versions.iter().filter_map(number).map(u16::from);
    let can_encrypt = |dialect: &u16| *dialect >= u16::from(Dialect::Smb3_0);
    let mut chosen: Vec<u16> =
        all.filter(|dialect| !place.require_encryption || can_encrypt(dialect)).collect();
    chosen.sort_unstable_by(|one, other| other.cmp(one));
    match chosen.is_empty() {
        false => Ok(chosen),
        true => Err(cannot_encrypt("none of `versions`").into()),
    }
}

/// A connection whose two sides have agreed on a version.
pub(super) struct Greeted {
    /// It, for the login.
    pub connection: Connection,
    /// What was said first.
    pub hello: Arc<Mutex<Hello>>,
    /// Its socket, to be taken back when the login is done.
    pub socket: Arc<Socket>,
}

/// Goes on with the socket, the numbers and the credits of a connection that is logged in.
pub(super) async fn take_over(
    connection: Connection,
    socket: &Socket,
    seal: Seal,
    silence: Duration,
    figures: &Arc<Figures>,
) -> Result<Mux, Fault> {
    let start =
        Start { next: connection.next_message_id(), credits: connection.credits(), silence };
    let halves = socket.take().await;
    drop(connection);
    let halves = halves.ok_or_else(|| internal("a connection was taken over twice"))?;
    Ok(Mux::new(halves, seal, &start, figures))
}

pub(super) async fn greet(
    place: &Place,
    dialects: &[u16],
    figures: &Arc<Figures>,
    until: Instant,
) -> Result<Greeted, Fault> {
    let port = place.port.unwrap_or(PORT);
    let address = if place.server.contains(':') && !place.server.starts_with('[') {
        format!("[{}]:{port}", place.server)
    } else {
        format!("{}:{port}", place.server)
    };
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let connecting = tokio::time::timeout(left, TcpStream::connect(&address)).await;
    let connected = connecting.unwrap_or_else(|late| Err(late.into()));
    let stream = connected.and_then(|stream| stream.set_nodelay(true).map(|()| stream));
    let stream = stream.map_err(|error| {
        let error =
            Error::new(ErrorKind::UNAVAILABLE, format!("cannot connect to the server: {error}"));
        Fault::Refused(error.with("address", &address).remedy(
            "look whether the server runs and `server` and `port` are right; the mount comes back by itself",
        ))
    })?;
    let socket = Arc::new(Socket::new(stream));
    let (sender, receiver) = Wire::pair(&socket, dialects, figures);
    let hello = sender.hello();
    let mut connection =
        Connection::from_transport(Box::new(sender), Box::new(receiver), place.server.as_str());
    connection.set_response_timeout(Some(place.silence));
    connection.set_send_timeout(Some(place.silence));
    connection.set_credit_wait_timeout(place.silence);
    // Nothing may be on its way when the login is done.
    connection.set_keepalive(None);
    connection.set_compression_requested(false);
    match connection.negotiate().await {
        Ok(()) => {}
        Err(smb2::Error::Protocol { status: NtStatus::NOT_SUPPORTED, .. }) => {
            return Err(no_common_version(place).into());
        }
        Err(smb2::Error::Protocol { status, .. }) => {
            return Err(refused(status, "no version could be agreed on", ""));
        }
        Err(error) => return Err(fault_of(&error, false)),
    }
    // The keys come from what really was on the wire.
    connection.with_preauth_hasher_mut(|hasher| *hasher = hash_of(&hello));
    Ok(Greeted { connection, hello, socket })
}

pub(super) async fn log_in(connection: &mut Connection, login: &Login) -> Result<Session, Fault> {
    let logged = Session::setup(connection, &login.user, &login.password, &login.domain).await;
    let session = match logged {
        Ok(session) => session,
        Err(smb2::Error::Protocol { status, .. }) => {
            return Err(not_logged_in(status, &login.user));
        }
        Err(error) => return Err(untrusted(&error)),
    };
    if session.should_sign || session.should_encrypt {
        return Ok(session);
    }
    let what = "the server logged the user in as a guest, whose messages nobody vouches for";
    let error = Error::new(ErrorKind::PERMISSION_DENIED, what).with("user", &login.user);
    Err(error.remedy("set `user` and `password`, and on Samba `map to guest = never`").into())
}

/// Failures while there is no share yet, which tell of the server's word or of the connection.
fn untrusted(error: &smb2::Error) -> Fault {
    use smb2::Error as E;
    let remedy = match error {
        E::GuestSessionRefused { .. } | E::Auth { .. } => {
            "set `user` and `password`, and on Samba `map to guest = never`"
        }
        E::SignatureInvalid { .. } => {
            "somebody changes what is sent, or the server does not sign: look at the network and at the server's settings"
        }
        E::ShareRedirected { .. } => "name the node that serves the share in `server`",
        _ => return fault_of(error, false),
    };
    let error = Error::new(ErrorKind::PERMISSION_DENIED, format!("the login failed: {error}"));
    Fault::Refused(error.remedy(remedy))
}

/// What encrypts, if both sides can.
fn cipher(params: &NegotiatedParams) -> Option<Cipher> {
    match params.dialect {
        Dialect::Smb3_1_1 => params.cipher,
        // These have one cipher, and a bit that tells whether the server wants it.
        Dialect::Smb3_0 | Dialect::Smb3_0_2 => {
            params.capabilities.contains(Capabilities::ENCRYPTION).then_some(Cipher::Aes128Ccm)
        }
        _ => None,
    }
}

fn encrypt(
    connection: &mut Connection,
    session: &Session,
    cipher: Option<Cipher>,
) -> Result<(), Fault> {
    match (cipher, &session.encryption_key, &session.decryption_key) {
        (Some(cipher), Some(ours), Some(theirs)) => {
            connection.activate_encryption(ours.clone(), theirs.clone(), cipher);
            Ok(())
        }
        _ => Err(cannot_encrypt("the connection to the server").into()),
    }
}

/// Asks the server, signed, what it was asked at first and what it answered: 3.1.1 has that in its keys.
pub(super) async fn validate(
    link: &Link,
    hello: &Mutex<Hello>,
    until: Instant,
) -> Result<(), Fault> {
    let (question, expected) =
        recalled(hello).ok_or_else(|| internal("the first messages were not kept"))?;
    let request = IoctlRequest {
        ctl_code: FSCTL_VALIDATE_NEGOTIATE_INFO,
        file_id: FileId::SENTINEL,
        max_input_response: 0,
        max_output_response: 24,
        flags: SMB2_0_IOCTL_IS_FSCTL,
        input_data: question,
    };
    let told = match link.call(Command::Ioctl, &request, 1, until).await {
        Ok(told) => told,
        // This is how a server says that it was asked something else.
        Err(Fault::Lost { .. }) => return Err(changed_on_the_way().into()),
        Err(fault) => return Err(fault),
    };
    match told.header.status {
        NtStatus::SUCCESS => {}
        // Servers from before SMB 3 do not know the question; that they said so is signed.
        NtStatus::NOT_SUPPORTED | NtStatus::INVALID_DEVICE_REQUEST | NtStatus::FILE_CLOSED => {
            return Ok(());
        }
        status => return Err(refused(status, "the version cannot be confirmed", "")),
    }
    let fields = Fields(&told.body);
    let (at, len) = (fields.u32(32)? as usize, fields.u32(36)? as usize);
    // Offsets count from the beginning of the message's header.
    let said = fields.bytes(at.saturating_sub(HEADER), len)?;
    if said == expected { Ok(()) } else { Err(changed_on_the_way().into()) }
}

fn changed_on_the_way() -> Error {
    Error::new(
        ErrorKind::PERMISSION_DENIED,
        "the server's version was not the one it chose: its first messages were changed on the way",
    )
    .remedy("look who is between this host and the server; name newer `versions`")
}

fn cannot_encrypt(who: &str) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, format!("encryption is demanded, and {who} cannot encrypt"))
        .remedy("name `versions` from 3.0 on, and let the server speak them; or set require_encryption = false where the network is trusted and the share lets it")
}

fn no_common_version(place: &Place) -> Error {
    Error::new(ErrorKind::UNSUPPORTED, "the server speaks none of the versions that are allowed")
        .with("versions", place.versions.join(", "))
        .remedy("name an older version in `versions` and `min_protocol`, or let the server speak a newer one (Samba: server max protocol = SMB3_11)")
}

fn too_old(dialect: Dialect, place: &Place) -> Error {
    no_common_version(place).with("chosen_by_server", dialect)
}

fn shown(dialect: Dialect, encrypted: bool) -> &'static str {
    match (dialect, encrypted) {
        (Dialect::Smb3_1_1, true) => "SMB 3.1.1, encrypted",
        (Dialect::Smb3_1_1, false) => "SMB 3.1.1, signed",
        (Dialect::Smb3_0_2, true) => "SMB 3.0.2, encrypted",
        (Dialect::Smb3_0_2, false) => "SMB 3.0.2, signed",
        (Dialect::Smb3_0, true) => "SMB 3.0, encrypted",
        (Dialect::Smb3_0, false) => "SMB 3.0, signed",
        _ => "SMB 2.1, signed",
    }
}

/// What is found out about the directory and its file system.
struct Probed {
    fsid: u64,
    max_name: u32,
    case_insensitive: bool,
}

/// Walks to the directory, one component at a time, so that no link is followed on the way.
async fn probe(link: &Arc<Link>, place: &Place, until: Instant) -> Result<Probed, Fault> {
    let whole = path(place);
    let ends = whole.match_indices('\\').map(|(at, _)| at);
    let ends = ends.chain([whole.len()]);
    let mut probed = look_at(link, "", until).await?;
    for end in ends.filter(|end| *end > 0) {
        probed = look_at(link, &whole[..end], until).await?;
    }
    Ok(probed)
}

async fn look_at(link: &Arc<Link>, directory: &str, until: Instant) -> Result<Probed, Fault> {
    let how = How {
        access: FileAccessMask::FILE_READ_ATTRIBUTES,
        shared: SHARE_ALL,
        disposition: CreateDisposition::FileOpen,
        options: DIRECTORY,
    };
    let same = FileId::SENTINEL;
    let answers = link
        .chain(
            &[
                (Command::Create, &create(directory.to_owned(), how)),
                (Command::QueryInfo, &query(InfoType::File, ALL, same)),
                (Command::QueryInfo, &query(InfoType::Filesystem, VOLUME, same)),
                (Command::QueryInfo, &query(InfoType::Filesystem, ATTRIBUTES, same)),
                (Command::Close, &CloseRequest { flags: 0, file_id: same }),
            ],
            until,
        )
        .await?;
    let [opened, all, volume, attributes, _] = &answers[..] else {
        return Err(internal("a chain of calls lost some answers").into());
    };
    match opened.header.status {
        NtStatus::SUCCESS => {}
        NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::OBJECT_PATH_NOT_FOUND => {
            let error = Error::new(ErrorKind::NOT_FOUND, "the share has no such directory");
            let error = error.with("path", directory.replace('\\', "/"));
            return Err(error.remedy("make the directory on the server, or correct `path`").into());
        }
        status => return Err(refused(status, "the directory cannot be opened", directory)),
    }
    for answer in [all, volume, attributes] {
        match answer.header.status {
            NtStatus::SUCCESS | NtStatus::BUFFER_OVERFLOW => {}
            status => return Err(refused(status, "the directory cannot be asked", directory)),
        }
    }
    // The serial number tells one volume of the server from another.
    let fsid = u64::from(Fields(output(volume)?).u32(8)?);
    if facts(all, fsid)?.kind != Kind::Directory {
        let error = invalid("`path` leads through something that is no directory");
        return Err(error.with("path", directory.replace('\\', "/")).into());
    }
    let attributes = Fields(output(attributes)?);
    Ok(Probed {
        fsid,
        // Counted in characters there and in bytes here: these names are shorter than either.
        max_name: attributes.u32(4)?,
        case_insensitive: attributes.u32(0)? & CASE_SENSITIVE == 0,
    })
}
