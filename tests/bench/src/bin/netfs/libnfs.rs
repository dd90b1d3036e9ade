// SPDX-License-Identifier: Apache-2.0
//! libnfs, from the shared library that users have, with so many operations in flight on one connection, as its own
//! asynchronous functions do them.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr,
    time::Instant,
};

use end_to_end::failure::{Context as _, Failure, Outcome, ensure};
use libloading::Library;
use novastor_bench::load::{Case, Sample};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Later ones have other functions.
const NAMES: [&str; 2] = ["libnfs.so.13", "libnfs.so.14"];
/// Longer than any load waits for a reply of a server that works.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };
const READ_ONLY: c_int = 0;

type Client = *mut c_void;
type File = *mut c_void;
type Done = unsafe extern "C" fn(c_int, Client, *mut c_void, *mut c_void);

/// `struct nfs_url`.
#[repr(C)]
struct Url {
    server: *mut c_char,
    path: *mut c_char,
    file: *mut c_char,
}

/// The library, loaded.
pub struct Libnfs {
    init: unsafe extern "C" fn() -> Client,
    destroy: unsafe extern "C" fn(Client),
    error: unsafe extern "C" fn(Client) -> *const c_char,
    parse: unsafe extern "C" fn(Client, *const c_char) -> *mut Url,
    forget: unsafe extern "C" fn(*mut Url),
    mount: unsafe extern "C" fn(Client, *const c_char, *const c_char) -> c_int,
    open: unsafe extern "C" fn(Client, *const c_char, c_int, *mut File) -> c_int,
    creat: unsafe extern "C" fn(Client, *const c_char, c_int, *mut File) -> c_int,
    unlink: unsafe extern "C" fn(Client, *const c_char) -> c_int,
    close: unsafe extern "C" fn(Client, File) -> c_int,
    pread: unsafe extern "C" fn(Client, File, u64, u64, Done, *mut c_void) -> c_int,
    pwrite: unsafe extern "C" fn(Client, File, u64, u64, *const c_void, Done, *mut c_void) -> c_int,
    descriptor: unsafe extern "C" fn(Client) -> c_int,
    events: unsafe extern "C" fn(Client) -> c_int,
    service: unsafe extern "C" fn(Client, c_int) -> c_int,
    // After the functions, which are gone with it.
    _library: Library,
}

impl Libnfs {
    /// Loads the library.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn load() -> Outcome<Self> {
        // SAFETY: libnfs has no initialiser that asks for anything.
        let library = NAMES.iter().find_map(|name| unsafe { Library::new(*name) }.ok());
        let library = library
            .ok_or_else(|| Failure::new("libnfs is missing: tests/services/netfs install"))?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is this function's in libnfs.h.
                *unsafe { library.get(concat!($name, "\0")) }.context($name)?
            };
        }
        Ok(Self {
            init: function!("nfs_init_context"),
            destroy: function!("nfs_destroy_context"),
            error: function!("nfs_get_error"),
            parse: function!("nfs_parse_url_dir"),
            forget: function!("nfs_destroy_url"),
            mount: function!("nfs_mount"),
            open: function!("nfs_open"),
            creat: function!("nfs_creat"),
            unlink: function!("nfs_unlink"),
            close: function!("nfs_close"),
            pread: function!("nfs_pread_async"),
            pwrite: function!("nfs_pwrite_async"),
            descriptor: function!("nfs_get_fd"),
            events: function!("nfs_which_events"),
            service: function!("nfs_service"),
            _library: library,
        })
    }
}

/// Where a file is.
pub struct Place {
    /// The server, its ports among the arguments, and the export: `nfs://HOST/EXPORT?nfsport=…`.
    pub url: String,
    /// The file in it.
    pub file: String,
}

/// Reads or writes a whole file once, one block after the other; a file to be written is made anew.
///
/// # Errors
/// When the server refuses, or gives or takes less than a block.
pub fn pass(library: &Libnfs, place: &Place, case: Case, size: u64) -> Outcome<Sample> {
    let mut mounted = Mounted::new(library, &place.url)?;
    mounted.open(&place.file, case.write)?;
    let (blocks, block) = (size / case.block as u64, case.block as u64);
    let buffer: Vec<u8> = (0..case.block).map(|at| (at * 31 % 251) as u8).collect();
    let finished = Finished::default();
    let slots: Vec<Slot> =
        (0..case.depth).map(|index| Slot { finished: &raw const finished, index }).collect();
    let mut begun = vec![Instant::now(); case.depth];
    let (mut next, mut latencies) = (0, Vec::new());
    let since = Instant::now();
    let mut free: Vec<usize> = (0..case.depth).collect();
    while (latencies.len() as u64) < blocks {
        for index in free.drain(..) {
            if next == blocks {
                break;
            }
            begun[index] = Instant::now();
            mounted.begin(&slots[index], next * block, &buffer, case.write)?;
            next += 1;
        }
        mounted.serve()?;
        for (index, result) in finished.take() {
            ensure(usize::try_from(result) == Ok(case.block), || {
                format!("libnfs did {result} of {} bytes", case.block)
            })?;
            latencies.push(begun[index].elapsed());
            free.push(index);
        }
    }
    let secs = since.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let micros = |part: usize| latencies[latencies.len() * part / 100].as_secs_f64() * 1e6;
    let latency_us = Some([micros(50), micros(99)]);
    Ok(Sample { rate: latencies.len() as f64 / secs, latency_us, cpu_us: 0.0 })
}

/// Finished operations: slot and result.
type Finished = RefCell<Vec<(usize, c_int)>>;

/// What libnfs hands back when an operation is finished.
struct Slot {
    finished: *const Finished,
    index: usize,
}

/// Called by libnfs on this thread, within one of its functions.
unsafe extern "C" fn done(result: c_int, _: Client, _: *mut c_void, slot: *mut c_void) {
    // SAFETY: the slot and the list it points to live until the client is destroyed.
    unsafe {
        let slot = &*slot.cast::<Slot>();
        (*slot.finished).borrow_mut().push((slot.index, result));
    }
}

/// A mounted export, and at most one open file.
struct Mounted<'a> {
    library: &'a Libnfs,
    client: Client,
    file: File,
}

impl<'a> Mounted<'a> {
    fn new(library: &'a Libnfs, url: &str) -> Outcome<Self> {
        let text = CString::new(url).context("url")?;
        // SAFETY: it takes nothing.
        let client = unsafe { (library.init)() };
        ensure(!client.is_null(), || "libnfs has no memory".to_owned())?;
        let mounted = Self { library, client, file: ptr::null_mut() };
        // SAFETY: the client is open, the text ends in a zero byte, and what is parsed is forgotten below.
        let parsed = unsafe { (library.parse)(client, text.as_ptr()) };
        ensure(!parsed.is_null(), || mounted.failure("the address"))?;
        // SAFETY: parsed points to what libnfs made, whose texts it made, too; it is not used afterwards.
        let result = unsafe {
            let result = (library.mount)(client, (*parsed).server, (*parsed).path);
            (library.forget)(parsed);
            result
        };
        ensure(result == 0, || mounted.failure("mount"))?;
        Ok(mounted)
    }

    fn open(&mut self, file: &str, fresh: bool) -> Outcome {
        let path = CString::new(format!("/{file}")).context("path")?;
        // SAFETY: the client is mounted, and the path ends in a zero byte.
        let result = unsafe {
            if fresh {
                // Whoever found an old one would first give its space back; there may be none.
                (self.library.unlink)(self.client, path.as_ptr());
                (self.library.creat)(self.client, path.as_ptr(), 0o644, &raw mut self.file)
            } else {
                (self.library.open)(self.client, path.as_ptr(), READ_ONLY, &raw mut self.file)
            }
        };
        ensure(result == 0, || self.failure("open"))
    }

    /// The slot and the buffer must outlive this.
    fn begin(&self, slot: &Slot, offset: u64, buffer: &[u8], write: bool) -> Outcome {
        let (slot, len) = ((&raw const *slot).cast_mut().cast(), buffer.len() as u64);
        // SAFETY: the file is open; the caller keeps slot and buffer until the client is destroyed.
        let result = unsafe {
            if write {
                let data = buffer.as_ptr().cast();
                (self.library.pwrite)(self.client, self.file, offset, len, data, done, slot)
            } else {
                (self.library.pread)(self.client, self.file, offset, len, done, slot)
            }
        };
        ensure(result == 0, || self.failure("begin"))
    }

    /// Waits until the socket is as libnfs wants it, and lets it go on.
    fn serve(&self) -> Outcome {
        // SAFETY: the client is mounted, so that it has a socket, which stays open meanwhile.
        let (socket, events) = unsafe {
            let socket = (self.library.descriptor)(self.client);
            let socket = rustix::fd::BorrowedFd::borrow_raw(socket);
            (socket, (self.library.events)(self.client))
        };
        let events = PollFlags::from_bits_truncate(u16::try_from(events).unwrap_or_default());
        let mut sockets = [PollFd::from_borrowed_fd(socket, events)];
        let ready = poll(&mut sockets, Some(&PATIENCE)).context("poll")?;
        ensure(ready == 1, || "the server is silent".to_owned())?;
        let events = c_int::from(sockets[0].revents().bits());
        // SAFETY: the client is mounted.
        let result = unsafe { (self.library.service)(self.client, events) };
        ensure(result == 0, || self.failure("go on"))
    }

    fn failure(&self, what: &str) -> String {
        // SAFETY: the text belongs to the client until the next call for it.
        let text = unsafe {
            let text = (self.library.error)(self.client);
            if text.is_null() { c"no reason given" } else { CStr::from_ptr(text) }.to_string_lossy()
        };
        format!("libnfs: {what}: {text}")
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // SAFETY: file and client are what libnfs gave, and are not used any more; nothing is in flight for a file that is
        // closed in good order, and what is given up with the client is finished by its end.
        unsafe {
            if !self.file.is_null() {
                (self.library.close)(self.client, self.file);
            }
            (self.library.destroy)(self.client);
        }
    }
}
