// SPDX-License-Identifier: Apache-2.0
//! How a client takes the place of an earlier one of the same attachment in the register, so that nobody can come between.
//!
//! The new client makes an entry like the one it wants in a lock of another name, [`NEXT`]. In one operation on the header
//! object, which is refused if the register has changed, that lock's record becomes the register's, and the attribute
//! [`FENCING`] gets the addresses of the clients before. Only then are those put on the blocklist, and the attribute removed. So
//! the register always has a living entry of the attachment; and whoever takes over from one that died on the way finds whom to
//! fence besides.

use std::ffi::CStr;

use driver_api::{Result, Retry};

use crate::{
    cluster::{Connection, check},
    error::internal,
    ffi,
    holders::{Entry, LOCK, bare, break_entry, list, lock},
};

/// A lock's record is kept in an attribute of its name with this before it.
const RECORD: &CStr = c"lock.novastor";
const NEXT: &CStr = c"novastor.next";
const NEXT_RECORD: &CStr = c"lock.novastor.next";
/// The addresses of clients that are yet to be fenced, with spaces between.
const FENCING: &CStr = c"novastor.fencing";

/// A client, as locks and the blocklist call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub client: String,
    pub address: String,
}

impl Identity {
    /// That of a connection.
    pub fn of(connection: &Connection) -> Result<Self> {
        let (client, address) = connection.identity()?;
        Ok(Self { client, address: bare(&address).to_owned() })
    }
}

/// Has the client of this connection take the place of its forerunners and fences those; gives its entry. None if no
/// forerunner has the register any more.
pub(crate) fn succeed(
    connection: &Connection,
    entry: &Entry,
    forerunners: &[Identity],
) -> Result<Option<Entry>> {
    let object = entry.object.as_c_str();
    let mut changed = None;
    for _ in 0..100 {
        let Some(before) = attribute(connection, object, RECORD)? else {
            return Ok(None);
        };
        let holders = list(connection, object, LOCK)?;
        let is_own = |client: &str, cookie: &str| {
            cookie.as_bytes() == entry.cookie.as_bytes()
                && forerunners.iter().any(|one| one.client == client)
        };
        let own = match holders.as_slice() {
            [one] if is_own(&one.client, &one.cookie) => one,
            _ => return Ok(None),
        };
        let mut addresses: Vec<_> = forerunners.iter().map(|one| one.address.as_str()).collect();
        if !addresses.contains(&own.address.as_str()) {
            addresses.push(&own.address);
        }
        let addresses = addresses.join(" ");
        // Whatever is there is left from an earlier try: who has the register is alone here.
        for left in list(connection, object, NEXT)? {
            break_entry(connection, object, NEXT, &left)?;
        }
        if !lock(connection, object, NEXT, &entry.cookie, true)? {
            continue;
        }
        let after = attribute(connection, object, NEXT_RECORD)?
            .ok_or_else(|| internal("the cluster keeps a lock's record elsewhere"))?;
        let is_changed = Change::new()
            .only_if(RECORD, &before)
            .set(RECORD, &after)
            .set(FENCING, addresses.as_bytes())
            .remove(NEXT_RECORD)
            .make(connection, object)?;
        if is_changed {
            changed = Some((after, addresses));
            break;
        }
    }
    let (record, addresses) = changed.ok_or_else(|| {
        internal("the register changes all the time").with_retry(Retry::TEMPORARY)
    })?;
    fence(connection, &addresses)?;
    let still = Change::new().only_if(RECORD, &record).remove(FENCING).make(connection, object)?;
    Ok(still.then(|| entry.clone()))
}

/// Fences the clients that somebody was about to fence who died meanwhile.
pub(crate) fn finish_fencing(connection: &Connection, object: &CStr, volume: &str) -> Result<()> {
    let Some(addresses) = attribute(connection, object, FENCING)? else { return Ok(()) };
    let addresses = String::from_utf8_lossy(&addresses).into_owned();
    tracing::warn!(volume, addresses, "fencing clients that the last holder had replaced");
    fence(connection, &addresses)?;
    // SAFETY: the ioctx is open, the texts are valid for the call.
    let removed = unsafe { ffi::rados_rmxattr(connection.io(), object.as_ptr(), FENCING.as_ptr()) };
    if removed == -libc::ENODATA {
        return Ok(());
    }
    check("cannot change the volume's register", removed).map(|_| ())
}

fn fence(connection: &Connection, addresses: &str) -> Result<()> {
    for address in addresses.split_whitespace() {
        connection.blocklist(address)?;
    }
    connection.catch_up()
}

/// An attribute of an object, if it has it.
fn attribute(connection: &Connection, object: &CStr, name: &CStr) -> Result<Option<Vec<u8>>> {
    let mut room = 4096;
    loop {
        let mut value = vec![0_u8; room];
        // SAFETY: the ioctx is open, the buffer has its length.
        let read = unsafe {
            ffi::rados_getxattr(
                connection.io(),
                object.as_ptr(),
                name.as_ptr(),
                value.as_mut_ptr().cast(),
                value.len(),
            )
        };
        match read {
            code if code == -libc::ERANGE && room < 1 << 20 => room *= 2,
            code if code == -libc::ENODATA || code == -libc::ENOENT => return Ok(None),
            code => {
                let len = check("cannot read the volume's register", code)?;
                value.truncate(len.unsigned_abs() as usize);
                return Ok(Some(value));
            }
        }
    }
}

/// Changes of an object's attributes, all at once or none.
struct Change(ffi::rados_write_op_t);

impl Change {
    fn new() -> Self {
        // SAFETY: a call without arguments.
        Self(unsafe { ffi::rados_create_write_op() })
    }

    fn only_if(self, name: &CStr, value: &[u8]) -> Self {
        // SAFETY: the operation exists; the name and the value are valid for the call, which copies them.
        unsafe {
            let (text, len) = (value.as_ptr().cast(), value.len());
            ffi::rados_write_op_cmpxattr(self.0, name.as_ptr(), ffi::COMPARE_EQUAL, text, len);
        }
        self
    }

    fn set(self, name: &CStr, value: &[u8]) -> Self {
        // SAFETY: as above.
        unsafe {
            let (text, len) = (value.as_ptr().cast(), value.len());
            ffi::rados_write_op_setxattr(self.0, name.as_ptr(), text, len);
        }
        self
    }

    fn remove(self, name: &CStr) -> Self {
        // SAFETY: as above.
        unsafe { ffi::rados_write_op_rmxattr(self.0, name.as_ptr()) };
        self
    }

    /// Makes them; false if an attribute is not what it was to be.
    fn make(self, connection: &Connection, object: &CStr) -> Result<bool> {
        let now = std::ptr::null_mut();
        // SAFETY: the operation exists, the ioctx is open, the text is valid for the call; no time means now.
        let made = unsafe {
            ffi::rados_write_op_operate(self.0, connection.io(), object.as_ptr(), now, 0)
        };
        if made == -libc::ECANCELED {
            return Ok(false);
        }
        check("cannot change the volume's register", made).map(|_| true)
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        // SAFETY: the operation exists, and is used no more.
        unsafe { ffi::rados_release_write_op(self.0) };
    }
}
