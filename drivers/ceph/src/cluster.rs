// SPDX-License-Identifier: Apache-2.0
//! Connections to the cluster.
//!
//! Each attachment has a connection of its own, because what the cluster fences is a connection: taking one volume over must not
//! take the others. All else goes over one connection per backend, in these states:
//!
//! ```text
//!   connecting --> connected --> lost         (a call timed out)      --> connecting, at the next call
//!                            \-> blocklisted  (the cluster fenced it) --> connecting, at once
//! ```
//!
//! Everything here may block, and runs on threads that may.

use std::{
    ffi::{CStr, CString, c_char, c_int},
    path::Path,
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use driver_api::{Error, ErrorKind, Result, Retry};

use crate::{
    answers::Answers,
    config::Config,
    counters::Totals,
    ending::{self, Counted, on_a_thread},
    error::{failed, internal, invalid, kind_of},
    ffi,
};

/// How long a fenced client stays on the blocklist, in seconds: longer than anything of it can be under way.
const BLOCKLIST_SECS: u32 = 24 * 3600;

/// A text for C.
pub(crate) fn c_text(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| invalid("a name or option has a zero byte"))
}

/// What a call returned, as a result.
pub(crate) fn check(what: &str, code: c_int) -> Result<c_int> {
    if code < 0 { Err(failed(what, code.into())) } else { Ok(code) }
}

/// A client of the cluster, connected, with one pool and namespace.
pub(crate) struct Connection {
    rados: ffi::rados_t,
    io: ffi::rados_ioctx_t,
    /// Once it is ready: a process that exits waits for it.
    counted: Option<Counted>,
}

// SAFETY: librados' handles may be used from any thread.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

/// A client before it has its pool: shut down if it never gets one.
struct Client(ffi::rados_t);

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: the handle came from rados_create2, and is used no more.
        unsafe { ffi::rados_shutdown(self.0) };
    }
}

impl Client {
    fn new(config: &Config) -> Result<Self> {
        let mut rados = ptr::null_mut();
        let (cluster, user) = (c_text("ceph")?, c_text(&format!("client.{}", config.user))?);
        // SAFETY: all pointers are valid for the call.
        let made = unsafe { ffi::rados_create2(&mut rados, cluster.as_ptr(), user.as_ptr(), 0) };
        check("cannot make a client of the cluster", made)?;
        Ok(Self(rados))
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        let (name, text) = (c_text(key)?, c_text(value)?);
        // SAFETY: the handle is open, the texts are valid for the call.
        let set = unsafe { ffi::rados_conf_set(self.0, name.as_ptr(), text.as_ptr()) };
        if set < 0 {
            let refused = invalid(format!("the cluster's library refuses the option `{key}`"));
            return Err(refused.with("cause", failed("set", set.into()).message()));
        }
        Ok(())
    }

    fn configure(&self, config: &Config, socket: Option<&Path>) -> Result<()> {
        if let Some(file) = &config.conf_file {
            let path = file.to_str().ok_or_else(|| invalid("`conf_file` is not UTF-8"))?;
            let text = c_text(path)?;
            // SAFETY: the handle is open, the path is valid for the call.
            let read = unsafe { ffi::rados_conf_read_file(self.0, text.as_ptr()) };
            check("cannot read the configuration of the cluster", read).map_err(|error| {
                error.with("conf_file", path).remedy("see that it exists and the host may read it")
            })?;
        }
        if !config.monitors.is_empty() {
            self.set("mon_host", &config.monitors.join(","))?;
        }
        if let Some(keyring) = &config.keyring {
            self.set("keyring", &keyring.to_string_lossy())?;
        }
        if let Some(key) = &config.key {
            self.set("key", key)?;
        }
        self.set("client_mount_timeout", &config.connect_timeout_secs.to_string())?;
        self.set("rados_mon_op_timeout", &config.mon_op_timeout_secs.to_string())?;
        self.set("rados_osd_op_timeout", &config.osd_op_timeout_secs.to_string())?;
        // A cache acknowledges what is not durable, and does not tell writes that were lost from those that were not.
        self.set("rbd_cache", "false")?;
        // An operation goes to the cluster from the thread that asks for it, not by way of another thread. Nothing holds
        // that thread up: of the bounds of what is under way, at which it would wait, there are those of who asks.
        self.set("rbd_non_blocking_aio", "false")?;
        self.set("objecter_inflight_ops", "0")?;
        self.set("objecter_inflight_op_bytes", "0")?;
        self.set("rbd_blocklist_on_break_lock", "true")?;
        self.set("log_to_stderr", "false")?;
        self.set("log_file", "")?;
        self.set("admin_socket", &socket.unwrap_or(Path::new("")).to_string_lossy())
    }

    fn connect(&self, config: &Config) -> Result<()> {
        // SAFETY: the handle is open and not connected.
        let connected = unsafe { ffi::rados_connect(self.0) };
        if connected >= 0 {
            return Ok(());
        }
        Err(refused(config, connected.into()))
    }
}

/// Why a cluster was not reached.
fn refused(config: &Config, code: i64) -> Error {
    let user = format!("client.{}", config.user);
    let (kind, why, remedy) = match i32::try_from(-code).unwrap_or(libc::EIO) {
        libc::EACCES | libc::EPERM => (
            ErrorKind::UNAUTHENTICATED,
            format!("the monitors refuse {user}: there is no such user, its key is wrong, or its keyring cannot be read or has none"),
            format!("compare `user` and the key with `ceph auth get {user}`"),
        ),
        libc::ETIMEDOUT | libc::ENOTCONN | libc::ECONNREFUSED | libc::EHOSTUNREACH => (
            ErrorKind::UNAVAILABLE,
            format!("no monitor answered within {} s", config.connect_timeout_secs),
            "see that the monitors run and their addresses are right; `connect_timeout_secs` is the limit"
                .to_owned(),
        ),
        libc::ENOENT => (
            ErrorKind::UNAUTHENTICATED,
            format!("there are no monitors' addresses or no key for {user}"),
            "give `monitors` or `conf_file`, and `key` or `keyring`".to_owned(),
        ),
        libc::EINVAL => (
            ErrorKind::INVALID_ARGUMENT,
            format!("the monitors' addresses or the key of {user} are malformed"),
            "correct `monitors` and `key` or `keyring`".to_owned(),
        ),
        _ => return failed("cannot connect to the cluster", code),
    };
    let cause = std::io::Error::from_raw_os_error(i32::try_from(-code).unwrap_or(libc::EIO));
    let error = Error::new(kind, why).caused_by(&cause).remedy(remedy);
    if config.monitors.is_empty() {
        error
    } else {
        error.with("monitors", config.monitors.join(","))
    }
}

impl Connection {
    /// Connects.
    fn open(config: &Config, socket: Option<&Path>) -> Result<Self> {
        let client = Client::new(config)?;
        client.configure(config, socket)?;
        client.connect(config)?;
        let mut io = ptr::null_mut();
        let pool = c_text(&config.pool)?;
        // SAFETY: the client is connected, the pointers are valid for the call.
        let opened = unsafe { ffi::rados_ioctx_create(client.0, pool.as_ptr(), &mut io) };
        if kind_of(opened.into()) == ErrorKind::NOT_FOUND && opened < 0 {
            return Err(Error::new(ErrorKind::NOT_FOUND, "the cluster has no pool of this name")
                .with("pool", &config.pool)
                .remedy(format!(
                    "correct `pool`, or make it: ceph osd pool create {0} && rbd pool init {0}",
                    config.pool
                )));
        }
        check("cannot open the pool", opened).map_err(|error| error.with("pool", &config.pool))?;
        let mut connection = Self { rados: client.0, io, counted: None };
        std::mem::forget(client);
        match connection.prepare(config) {
            Ok(()) => {
                // After what librados initialised while it connected, so that an exit undoes that later.
                connection.counted = Some(ending::connection());
                Ok(connection)
            }
            Err(error) => {
                // Here, where it may wait: a process that ends at once would not wait for a thread.
                let unused = std::mem::ManuallyDrop::new(connection);
                shut_down(unused.rados, unused.io);
                Err(error)
            }
        }
    }

    fn prepare(&self, config: &Config) -> Result<()> {
        // Writes to a full pool are to fail with ENOSPC or EDQUOT; otherwise they wait for space.
        // SAFETY: the ioctx is open.
        unsafe { ffi::rados_set_pool_full_try(self.io) };
        if config.namespace.is_empty() {
            return Ok(());
        }
        let namespace = c_text(&config.namespace)?;
        let mut exists = false;
        // SAFETY: the ioctx is open, the pointers are valid for the call.
        let asked = unsafe { ffi::rbd_namespace_exists(self.io, namespace.as_ptr(), &mut exists) };
        check("cannot look for the namespace", asked)?;
        if !exists {
            return Err(Error::new(ErrorKind::NOT_FOUND, "the pool has no namespace of this name")
                .with("namespace", &config.namespace)
                .remedy(format!(
                    "correct `namespace`, or make it: rbd namespace create {}/{}",
                    config.pool, config.namespace
                )));
        }
        // SAFETY: as above.
        unsafe { ffi::rados_ioctx_set_namespace(self.io, namespace.as_ptr()) };
        Ok(())
    }

    /// The pool, for calls of librbd.
    pub fn io(&self) -> ffi::rados_ioctx_t {
        self.io
    }

    /// What this client is told.
    pub fn answers(&self) -> Answers {
        Answers::of(self.io)
    }

    /// Waits until this client knows whom the cluster has fenced: what it asks from then on has every OSD that
    /// answers know it, too.
    pub fn catch_up(&self) -> Result<()> {
        // SAFETY: the client is connected.
        let caught_up = unsafe { ffi::rados_wait_for_latest_osdmap(self.rados) };
        check("cannot get the newest map of the cluster", caught_up).map(|_| ())
    }

    /// This client, as the cluster's locks and its blocklist call it: name and address.
    pub fn identity(&self) -> Result<(String, String)> {
        let mut addresses = ptr::null_mut();
        // SAFETY: the client is connected, the pointer is valid for the call.
        let asked = unsafe { ffi::rados_getaddrs(self.rados, &mut addresses) };
        check("cannot ask for the client's own address", asked)?;
        // SAFETY: the call succeeded and gave a text, which is freed once, after it was copied.
        let address = unsafe {
            let address = CStr::from_ptr(addresses).to_string_lossy().into_owned();
            libc::free(addresses.cast());
            address
        };
        // SAFETY: the client is connected.
        let number = unsafe { ffi::rados_get_instance_id(self.rados) };
        Ok((format!("client.{number}"), address))
    }

    /// Keeps the client with this address away from all OSDs.
    pub fn blocklist(&self, address: &str) -> Result<()> {
        let text = c_text(address)?.into_raw();
        // SAFETY: the client is connected; the text is the callee's to change during the call.
        let listed = unsafe { ffi::rados_blocklist_add(self.rados, text, BLOCKLIST_SECS) };
        // SAFETY: it came from into_raw, and its length is the same: an address has no zero byte to be changed.
        drop(unsafe { CString::from_raw(text) });
        check("cannot put the holder on the blocklist", listed)
            .map(|_| ())
            .map_err(|error| error.with("address", address))
    }

    /// The number of a pool.
    pub fn pool_id(&self, name: &str) -> Result<i64> {
        let text = c_text(name)?;
        // SAFETY: the client is connected, the text is valid for the call.
        let id = unsafe { ffi::rados_pool_lookup(self.rados, text.as_ptr()) };
        if id == -i64::from(libc::ENOENT) {
            return Err(Error::new(ErrorKind::NOT_FOUND, "the cluster has no pool of this name")
                .with("pool", name)
                .remedy("correct the name, or make it: ceph osd pool create (ceph osd lspools shows what there is)"));
        }
        if id < 0 { Err(failed("cannot look for the pool", id)) } else { Ok(id) }
    }

    /// The pool of the images.
    pub fn own_pool_id(&self) -> i64 {
        // SAFETY: the ioctx is open.
        unsafe { ffi::rados_ioctx_get_id(self.io) }
    }

    /// The name of a pool.
    pub fn pool_name(&self, id: i64) -> Result<String> {
        let mut text = [0 as c_char; 256];
        // SAFETY: the client is connected, the buffer has its length.
        let asked = unsafe {
            ffi::rados_pool_reverse_lookup(self.rados, id, text.as_mut_ptr(), text.len())
        };
        check("cannot ask for the pool's name", asked)?;
        // SAFETY: the call succeeded, and ended the text with a zero.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// Asks the monitors, in JSON.
    pub fn ask_monitors(&self, command: &str) -> Result<serde_json::Value> {
        let command =
            c_text(&serde_json::json!({ "prefix": command, "format": "json" }).to_string())?;
        let mut commands = [command.as_ptr()];
        let (mut out, mut out_len) = (ptr::null_mut(), 0);
        // SAFETY: the client is connected, the pointers are valid for the call; a status text is not wanted.
        let asked = unsafe {
            ffi::rados_mon_command(
                self.rados,
                commands.as_mut_ptr(),
                1,
                ptr::null(),
                0,
                &mut out,
                &mut out_len,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
        check("the monitors refuse a question", asked)?;
        if out.is_null() {
            return Err(internal("the monitors answered nothing"));
        }
        // SAFETY: the call succeeded and gave out_len bytes at out.
        let bytes = unsafe { std::slice::from_raw_parts(out.cast::<u8>(), out_len) }.to_vec();
        // SAFETY: librados allocated it, and it is used no more.
        unsafe { ffi::rados_buffer_free(out) };
        serde_json::from_slice(&bytes)
            .map_err(|error| internal("the monitors' answer is no JSON").caused_by(&error))
    }

    /// The cluster's identity.
    pub fn fsid(&self) -> Result<String> {
        let mut text = [0 as c_char; 64];
        // SAFETY: the client is connected, the buffer has its length.
        let asked = unsafe { ffi::rados_cluster_fsid(self.rados, text.as_mut_ptr(), text.len()) };
        check("cannot ask for the cluster's identity", asked)?;
        // SAFETY: the call succeeded, and ended the text with a zero.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }
}

/// Ends a connection that nobody has any more; waits for its threads.
fn shut_down(rados: ffi::rados_t, io: ffi::rados_ioctx_t) {
    // SAFETY: the handles came from a connection that is being dropped, and nobody else has them.
    unsafe {
        ffi::rados_ioctx_destroy(io);
        ffi::rados_shutdown(rados);
    }
}

impl Drop for Connection {
    /// Ends on a thread of its own: it waits for the connection's threads, one of which may be dropping it.
    fn drop(&mut self) {
        let (rados, io) = (self.rados as usize, self.io as usize);
        on_a_thread(move || shut_down(rados as ffi::rados_t, io as ffi::rados_ioctx_t));
    }
}

/// How the backend's own connection is.
enum State {
    Connecting,
    Connected(Arc<Connection>),
    Blocklisted,
    Lost(String),
}

/// A backend's cluster.
pub(crate) struct Cluster {
    pub config: Config,
    pub totals: Arc<Totals>,
    closed: AtomicBool,
    state: Mutex<State>,
    /// Held while connecting, so that one does it and the others wait.
    door: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cluster {
    /// Connects to it.
    pub fn open(config: Config) -> Result<Self> {
        config.check()?;
        let cluster = Self {
            config,
            totals: Arc::default(),
            closed: AtomicBool::new(false),
            state: Mutex::new(State::Connecting),
            door: Mutex::new(()),
        };
        let connection = cluster.connection()?;
        tracing::info!(fsid = connection.fsid()?, pool = cluster.config.pool, "connected");
        Ok(cluster)
    }

    /// A connection besides the backend's own.
    /// Its client listens on `socket` for questions about itself.
    pub fn another(&self, socket: Option<&Path>) -> Result<Connection> {
        let opened = Connection::open(&self.config, socket);
        self.totals.tried(opened.is_ok());
        opened
    }

    fn connected(&self) -> Option<Arc<Connection>> {
        match &*lock(&self.state) {
            State::Connected(connection) => Some(Arc::clone(connection)),
            _ => None,
        }
    }

    fn connection(&self) -> Result<Arc<Connection>> {
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        let _door = lock(&self.door);
        if self.is_closed() {
            return Err(Error::new(ErrorKind::UNAVAILABLE, "the backend is closed")
                .with_retry(Retry::PERMANENT)
                .remedy("open it again"));
        }
        if let Some(connection) = self.connected() {
            return Ok(connection);
        }
        match self.another(None) {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *lock(&self.state) = State::Connected(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                *lock(&self.state) = State::Lost(error.to_string());
                Err(error)
            }
        }
    }

    /// Does `work` over the backend's connection. One that the cluster fenced is replaced, and the work done again: a fenced
    /// client's requests have no effect.
    pub fn with<T>(&self, mut work: impl FnMut(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.connection()?;
        let done = work(&connection);
        let kind = done.as_ref().err().map(Error::kind);
        if let Some(kind) = kind {
            self.totals.note(kind);
        }
        match kind {
            Some(ErrorKind::FENCED) => {
                tracing::warn!("the cluster fenced the backend's connection: connecting anew");
                self.give_up(&connection, State::Blocklisted);
                work(&*self.connection()?)
            }
            Some(ErrorKind::TIMED_OUT | ErrorKind::UNAVAILABLE) => {
                let why = done.as_ref().err().map(ToString::to_string).unwrap_or_default();
                self.give_up(&connection, State::Lost(why));
                done
            }
            _ => done,
        }
    }

    fn give_up(&self, connection: &Arc<Connection>, next: State) {
        let mut state = lock(&self.state);
        // Somebody may have connected anew already.
        if matches!(&*state, State::Connected(current) if Arc::ptr_eq(current, connection)) {
            match next {
                State::Blocklisted => self.totals.blocklisted(),
                _ => self.totals.lost(),
            }
            *state = next;
        }
    }

    /// Gives the backend's own connection up for good, once nobody makes one.
    pub fn close(&self) {
        let _door = lock(&self.door);
        self.closed.store(true, Ordering::Release);
        *lock(&self.state) = State::Lost("the backend is closed".into());
    }

    /// Whether its backend was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The state's name, and why it is so.
    pub fn state(&self) -> (&'static str, String) {
        match &*lock(&self.state) {
            State::Connecting => ("connecting", String::new()),
            State::Connected(_) => ("connected", String::new()),
            State::Blocklisted => ("blocklisted", String::new()),
            State::Lost(why) => ("lost", why.clone()),
        }
    }
}
