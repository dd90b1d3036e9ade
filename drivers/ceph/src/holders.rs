// SPDX-License-Identifier: Apache-2.0
//! Who has a volume attached, among all hosts of the cluster.
//!
//! - **The register** is a lock of the OSDs (`cls_lock`) named [`LOCK`] on the image's header object: exclusive for a writer,
//!   shared for readers. Its entries say client, address, epoch and owner. It goes with the image.
//! - **A holder lives** while its client watches the image's header, which librbd does for whoever has it open for writing;
//!   a reader opens it so, too. The cluster drops the watch of a client that is gone after 30 s.
//! - **Taking over**, from the dead or by force: the holder's client is put on the blocklist, then its entry is removed, then
//!   the taker waits for the map that says so. From then on every OSD that answers the taker refuses the holder.
//! - **librbd's exclusive lock** is held besides by every writer, for clients that do not know the register (`rbd`, QEMU).
//! - **The epoch** of the last writer is an attribute of the header object, written by who has the register alone.
//! - An attachment with a write in doubt has its own client fenced, and goes on with another one (`renewal.rs`).
//! - One that is detached while a write is in doubt leaves its entry behind: the next attacher puts it on the blocklist
//!   like any dead one, and nothing of it can land late.

use std::{
    collections::HashSet,
    ffi::CStr,
    ptr,
    time::{Duration, Instant},
};

use driver_api::{Attach, AttachMode, Error, ErrorKind, Result};

use crate::{
    cluster::{Connection, c_text, check},
    error::{fenced, internal},
    ffi,
    image::Image,
    succession::finish_fencing,
};

/// The register's name.
pub(crate) const LOCK: &CStr = c"novastor";
/// What readers share.
const READERS: &CStr = c"readers";
/// The attribute with the last writer's epoch.
const EPOCH: &CStr = c"novastor.epoch";
/// How long somebody else's lock may be on its way out.
const HANDING_OVER: Duration = Duration::from_secs(3);

/// An entry of the register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub client: String,
    pub cookie: String,
    pub address: String,
    writer: bool,
}

impl Holder {
    fn epoch(&self) -> u64 {
        self.cookie.split_once(' ').and_then(|(epoch, _)| epoch.parse().ok()).unwrap_or(0)
    }

    fn owner(&self) -> &str {
        self.cookie.split_once(' ').map_or(self.cookie.as_str(), |(_, owner)| owner)
    }
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mode = if self.writer { "writer" } else { "reader" };
        write!(
            f,
            "{} ({} at {}, {mode}, epoch {})",
            self.owner(),
            self.client,
            self.address,
            self.epoch()
        )
    }
}

/// This attachment's entry.
#[derive(Clone)]
pub(crate) struct Entry {
    pub object: std::ffi::CString,
    pub cookie: std::ffi::CString,
}

/// What the name of a header object begins with; the image's identity follows.
const HEADER: &str = "rbd_header.";

fn header(image: &Image) -> Result<std::ffi::CString> {
    c_text(&format!("{HEADER}{}", image.id()?))
}

/// The register's entries.
pub(crate) fn holders(connection: &Connection, image: &Image) -> Result<Vec<Holder>> {
    list(connection, &header(image)?, LOCK)
}

/// The address without the version of the protocol, which some calls tell and some do not.
pub(crate) fn bare(address: &str) -> &str {
    let versions = ["v2:", "v1:", "any:"];
    versions.iter().find_map(|version| address.strip_prefix(version)).unwrap_or(address)
}

/// The addresses of the clients that live and have the image open.
fn watching(image: &Image) -> Result<HashSet<String>> {
    Ok(image.watchers()?.iter().map(|address| bare(address).to_owned()).collect())
}

/// The living holder of an image, if it has one.
pub(crate) fn living(connection: &Connection, image: &Image) -> Result<Option<Holder>> {
    let holders = holders(connection, image)?;
    if holders.is_empty() {
        return Ok(None);
    }
    let watching = watching(image)?;
    Ok(holders.into_iter().find(|holder| watching.contains(&holder.address)))
}

/// Refuses because of this holder.
pub(crate) fn in_use(volume: &str, holder: &Holder) -> Error {
    in_use_by(volume, &[holder])
}

/// Refuses because of these holders, and names the owner of each.
fn in_use_by(volume: &str, holders: &[&Holder]) -> Error {
    let all: Vec<_> = holders.iter().map(ToString::to_string).collect();
    let why = format!("the volume is attached by {}", all.join(", and by "));
    let error = Error::new(ErrorKind::IN_USE, why).with("volume", volume);
    let error = holders.iter().fold(error, |error, holder| error.with("holder", holder.owner()));
    error.remedy(
        "detach it there, or attach with --take-over; a host that died is noticed after 30 s",
    )
}

/// The entries of a lock of an object.
pub(crate) fn list(connection: &Connection, object: &CStr, name: &CStr) -> Result<Vec<Holder>> {
    let mut room = 4096;
    loop {
        let (mut tag, mut clients, mut cookies, mut addresses) =
            (vec![0_u8; 256], vec![0_u8; room], vec![0_u8; room], vec![0_u8; room]);
        let mut lens = [tag.len(), room, room, room];
        let [tag_len, clients_len, cookies_len, addresses_len] = &mut lens;
        let mut exclusive = 0;
        // SAFETY: the ioctx is open, the texts are valid for the call, each buffer has its length.
        let listed = unsafe {
            ffi::rados_list_lockers(
                connection.io(),
                object.as_ptr(),
                name.as_ptr(),
                &mut exclusive,
                tag.as_mut_ptr().cast(),
                tag_len,
                clients.as_mut_ptr().cast(),
                clients_len,
                cookies.as_mut_ptr().cast(),
                cookies_len,
                addresses.as_mut_ptr().cast(),
                addresses_len,
            )
        };
        if listed == -(libc::ERANGE as isize) {
            room = lens[1..].iter().copied().fold(room * 2, usize::max);
            continue;
        }
        if listed == -(libc::ENOENT as isize) {
            return Ok(Vec::new());
        }
        let count = i32::try_from(listed).unwrap_or(-libc::EIO);
        let count = check("cannot read who holds the volume", count)?;
        let texts = |bytes: &[u8], len: usize| -> Vec<String> {
            bytes[..len.min(bytes.len())]
                .split(|byte| *byte == 0)
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect()
        };
        let clients = texts(&clients, lens[1]);
        let cookies = texts(&cookies, lens[2]);
        let addresses = texts(&addresses, lens[3]);
        let all = clients.into_iter().zip(cookies).zip(addresses).take(count as usize);
        let writer = exclusive != 0;
        return Ok(all
            .map(|((client, cookie), address)| {
                let address = bare(&address).to_owned();
                Holder { client, cookie, address, writer }
            })
            .collect());
    }
}

/// Makes an entry for this attachment, fencing others if it says so.
pub(crate) fn enter(
    connection: &Connection,
    image: &Image,
    volume: &str,
    attach: &Attach,
) -> Result<Entry> {
    let object = header(image)?;
    let writer = attach.mode != AttachMode::READ_ONLY;
    let cookie = c_text(&format!("{} {}", attach.epoch, attach.owner))?;
    // Who had it last may have fenced clients of its own, which are not to be heard any more by anybody that this one asks.
    connection.catch_up()?;
    for _ in 0..100 {
        let holders = list(connection, &object, LOCK)?;
        let recorded = recorded_epoch(connection, &object)?;
        let latest = holders.iter().map(Holder::epoch).fold(recorded, u64::max);
        if attach.epoch < latest {
            return Err(fenced(volume).with("epoch", attach.epoch).with("latest_epoch", latest));
        }
        let conflicting = holders.iter().filter(|holder| writer || holder.writer);
        let conflicting: Vec<_> = conflicting.collect();
        if !conflicting.is_empty() {
            let watching = watching(image)?;
            let living = conflicting.iter().filter(|one| watching.contains(&one.address));
            let living: Vec<&Holder> = living.copied().collect();
            if !living.is_empty() && !attach.force {
                return Err(in_use_by(volume, &living));
            }
            for holder in conflicting {
                tracing::warn!(volume, %holder, "taking the volume over");
                depose(connection, &object, holder)?;
            }
            connection.catch_up()?;
        }
        finish_fencing(connection, &object, volume)?;
        if lock(connection, &object, LOCK, &cookie, writer)? {
            let entry = Entry { object, cookie };
            if let Err(error) = admit(connection, image, volume, attach, &entry, writer) {
                if let Err(left) = entry.remove(connection) {
                    tracing::warn!(volume, error = %left, "an entry in the register stays behind");
                }
                return Err(error);
            }
            return Ok(entry);
        }
    }
    Err(Error::new(ErrorKind::IN_USE, "the volume passes from one holder to the next all the time")
        .with("volume", volume)
        .remedy("find out which hosts attach it"))
}

/// What remains to be done once the register has this attachment.
fn admit(
    connection: &Connection,
    image: &Image,
    volume: &str,
    attach: &Attach,
    entry: &Entry,
    writer: bool,
) -> Result<()> {
    let recorded = recorded_epoch(connection, &entry.object)?;
    if attach.epoch < recorded {
        return Err(fenced(volume).with("epoch", attach.epoch).with("latest_epoch", recorded));
    }
    if !writer {
        return Ok(());
    }
    take_lock(image, volume, |_| attach.force)?;
    let epoch = attach.epoch.to_string();
    // SAFETY: the ioctx is open, the pointers are valid for the call.
    let set = unsafe {
        ffi::rados_setxattr(
            connection.io(),
            entry.object.as_ptr(),
            EPOCH.as_ptr(),
            epoch.as_ptr().cast(),
            epoch.len(),
        )
    };
    check("cannot record the epoch", set).map(|_| ())
}

/// Takes librbd's own lock: from the dead, from the owners at these addresses, or once a short piece of work that has it is done.
pub(crate) fn take_lock(image: &Image, volume: &str, from: impl Fn(&str) -> bool) -> Result<()> {
    let patience = Instant::now() + HANDING_OVER;
    loop {
        let owners = image.lock_owners()?;
        let Some(owner) = owners.first() else { break };
        let lives = watching(image)?.contains(bare(owner));
        if from(bare(owner)) || !lives {
            tracing::warn!(volume, owner, "breaking the exclusive lock");
            image.break_lock(owner)?;
            break;
        }
        if Instant::now() > patience {
            return Err(Error::new(
                ErrorKind::IN_USE,
                format!("another program has the image's exclusive lock, at {owner}"),
            )
            .with("volume", volume)
            .remedy("end it (rbd status, rbd lock list), or attach with --take-over"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    image.lock()
}

fn depose(connection: &Connection, object: &CStr, holder: &Holder) -> Result<()> {
    connection.blocklist(&holder.address)?;
    break_entry(connection, object, LOCK, holder)
}

/// Removes an entry of somebody else.
pub(crate) fn break_entry(
    connection: &Connection,
    object: &CStr,
    name: &CStr,
    holder: &Holder,
) -> Result<()> {
    let (client, cookie) = (c_text(&holder.client)?, c_text(&holder.cookie)?);
    // SAFETY: the ioctx is open, the texts are valid for the call.
    let broken = unsafe {
        ffi::rados_break_lock(
            connection.io(),
            object.as_ptr(),
            name.as_ptr(),
            client.as_ptr(),
            cookie.as_ptr(),
        )
    };
    if broken == -libc::ENOENT {
        return Ok(());
    }
    check("cannot remove the holder's entry", broken).map(|_| ())
}

/// Makes the entry; false if others were first.
pub(crate) fn lock(
    connection: &Connection,
    object: &CStr,
    name: &CStr,
    cookie: &CStr,
    writer: bool,
) -> Result<bool> {
    let (io, object, name) = (connection.io(), object.as_ptr(), name.as_ptr());
    let (cookie, none) = (cookie.as_ptr(), c"".as_ptr());
    // SAFETY: the ioctx is open, the texts are valid for the call; no duration: it lasts until it is given up.
    let locked = unsafe {
        match writer {
            true => ffi::rados_lock_exclusive(io, object, name, cookie, none, ptr::null_mut(), 0),
            false => {
                let tag = READERS.as_ptr();
                ffi::rados_lock_shared(io, object, name, cookie, tag, none, ptr::null_mut(), 0)
            }
        }
    };
    match locked {
        code if code == -libc::EBUSY => Ok(false),
        code => check("cannot enter the volume's register", code).map(|_| true),
    }
}

fn recorded_epoch(connection: &Connection, object: &CStr) -> Result<u64> {
    let mut text = [0_u8; 32];
    // SAFETY: the ioctx is open, the buffer has its length.
    let read = unsafe {
        ffi::rados_getxattr(
            connection.io(),
            object.as_ptr(),
            EPOCH.as_ptr(),
            text.as_mut_ptr().cast(),
            text.len(),
        )
    };
    if read == -libc::ENODATA {
        return Ok(0);
    }
    let len = check("cannot read the epoch", read)? as usize;
    let text = std::str::from_utf8(&text[..len.min(text.len())]).unwrap_or_default();
    text.parse().map_err(|_| internal("the image's attribute novastor.epoch is no number"))
}

impl Entry {
    /// The identity of the image that it is about.
    pub fn image_id(&self) -> Result<String> {
        let object = self.object.to_string_lossy();
        let id = object.strip_prefix(HEADER);
        id.map(str::to_owned).ok_or_else(|| internal("an entry is about no image's header"))
    }

    /// Takes it out of the register.
    pub fn remove(&self, connection: &Connection) -> Result<()> {
        // SAFETY: the ioctx is open, the texts are valid for the call.
        let unlocked = unsafe {
            ffi::rados_unlock(
                connection.io(),
                self.object.as_ptr(),
                LOCK.as_ptr(),
                self.cookie.as_ptr(),
            )
        };
        if unlocked == -libc::ENOENT {
            return Ok(());
        }
        check("cannot leave the volume's register", unlocked).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_says_who_and_since_when() {
        let holder = Holder {
            client: "client.7".into(),
            cookie: "12 host a".into(),
            address: bare("v2:10.0.0.1:0/5").into(),
            writer: true,
        };
        assert_eq!((holder.epoch(), holder.owner()), (12, "host a"));
        assert_eq!(holder.address, "10.0.0.1:0/5");
        assert_eq!(bare("10.0.0.1:0/5"), "10.0.0.1:0/5");
        assert!(holder.to_string().contains("host a (client.7 at 10.0.0.1:0/5, writer, epoch 12)"));
    }
}
