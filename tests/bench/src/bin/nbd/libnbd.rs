// SPDX-License-Identifier: Apache-2.0
//! The part of libnbd that the load needs, from the shared library that users have: no header, no wrapper.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr,
};

use end_to_end::failure::{Context, Failure, Outcome, ensure};
use libloading::Library;

const NAME: &str = "libnbd.so.0";
/// Longer than any load waits for a reply of a server that works.
const PATIENCE_MS: c_int = 30_000;

/// `nbd_completion_callback`.
#[repr(C)]
struct Callback {
    call: unsafe extern "C" fn(*mut c_void, *mut c_int) -> c_int,
    user_data: *mut c_void,
    free: Option<unsafe extern "C" fn(*mut c_void)>,
}

type Handle = *mut c_void;
type Transfer = unsafe extern "C" fn(Handle, *mut c_void, usize, u64, Callback, u32) -> i64;

/// libnbd, loaded.
pub struct Libnbd {
    create: unsafe extern "C" fn() -> Handle,
    close: unsafe extern "C" fn(Handle),
    error: unsafe extern "C" fn() -> *const c_char,
    set_strict_mode: unsafe extern "C" fn(Handle, u32) -> c_int,
    set_pread_initialize: unsafe extern "C" fn(Handle, bool) -> c_int,
    set_structured_replies: unsafe extern "C" fn(Handle, bool) -> c_int,
    connect_uri: unsafe extern "C" fn(Handle, *const c_char) -> c_int,
    pread: Transfer,
    pwrite: Transfer,
    poll: unsafe extern "C" fn(Handle, c_int) -> c_int,
    notify_read: unsafe extern "C" fn(Handle) -> c_int,
    direction: unsafe extern "C" fn(Handle) -> c_uint,
    shutdown: unsafe extern "C" fn(Handle, u32) -> c_int,
    // After the functions, which are gone with it.
    _library: Library,
}

/// `LIBNBD_AIO_DIRECTION_WRITE`: the library waits to write.
const WAITS_TO_WRITE: c_uint = 2;

impl Libnbd {
    /// Loads the library.
    ///
    /// # Errors
    /// When it is not installed, or older than 1.12.
    pub fn load() -> Outcome<Self> {
        // SAFETY: libnbd has no initialiser that asks for anything.
        let library = unsafe { Library::new(NAME) }.context(NAME)?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is this function's in libnbd.h, which libnbd keeps for ever.
                *unsafe { library.get(concat!($name, "\0")) }.context($name)?
            };
        }
        Ok(Self {
            create: function!("nbd_create"),
            close: function!("nbd_close"),
            error: function!("nbd_get_error"),
            set_strict_mode: function!("nbd_set_strict_mode"),
            set_pread_initialize: function!("nbd_set_pread_initialize"),
            set_structured_replies: function!("nbd_set_request_structured_replies"),
            connect_uri: function!("nbd_connect_uri"),
            pread: function!("nbd_aio_pread"),
            pwrite: function!("nbd_aio_pwrite"),
            poll: function!("nbd_poll"),
            notify_read: function!("nbd_aio_notify_read"),
            direction: function!("nbd_aio_get_direction"),
            shutdown: function!("nbd_shutdown"),
            _library: library,
        })
    }

    fn failure(&self, what: &str) -> Failure {
        // SAFETY: the text belongs to this thread until its next call of libnbd.
        let text = unsafe {
            let text = (self.error)();
            if text.is_null() { c"no reason given" } else { CStr::from_ptr(text) }.to_string_lossy()
        };
        Failure::new(format!("{what}: {text}"))
    }
}

/// Finished slots, each with its errno or 0.
type Finished = RefCell<Vec<(usize, c_int)>>;

/// What libnbd hands back when a slot's command is finished.
struct Slot {
    finished: *const Finished,
    index: usize,
}

/// Called by libnbd on the connection's thread, within one of its functions.
unsafe extern "C" fn completed(slot: *mut c_void, error: *mut c_int) -> c_int {
    // SAFETY: the slot and the list it points to live until the handle is closed.
    unsafe {
        let slot = &*slot.cast::<Slot>();
        (*slot.finished).borrow_mut().push((slot.index, *error));
    }
    1 // libnbd forgets the command.
}

/// A connection with room for some commands at once, each with a buffer of its own.
pub struct Connection<'a> {
    library: &'a Libnbd,
    handle: Handle,
    slots: Box<[Slot]>,
    buffers: Vec<Box<[u8]>>,
    flying: Vec<bool>,
    in_flight: usize,
    finished: Box<Finished>,
}

impl<'a> Connection<'a> {
    /// Connects. Every server gets simple replies, and none of the checks that libnbd makes of its caller.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn open(library: &'a Libnbd, uri: &str, depth: usize, block: usize) -> Outcome<Self> {
        let uri = CString::new(uri).context("uri")?;
        // SAFETY: it takes nothing.
        let handle = unsafe { (library.create)() };
        ensure(!handle.is_null(), || library.failure("nbd_create").to_string())?;
        let finished = Box::new(Finished::default());
        let slot = |index| Slot { finished: &raw const *finished, index };
        let connection = Self {
            library,
            handle,
            slots: (0..depth).map(slot).collect(),
            buffers: (0..depth).map(|_| vec![0; block].into_boxed_slice()).collect(),
            flying: vec![false; depth],
            in_flight: 0,
            finished,
        };
        // SAFETY: the handle is open, and uri ends in a zero byte.
        let connected = unsafe {
            (library.set_strict_mode)(handle, 0) == 0
                && (library.set_pread_initialize)(handle, false) == 0
                && (library.set_structured_replies)(handle, false) == 0
                && (library.connect_uri)(handle, uri.as_ptr()) == 0
        };
        ensure(connected, || library.failure("connect").to_string())?;
        Ok(connection)
    }

    /// The buffer of a slot whose command is finished.
    ///
    /// # Errors
    /// When it is not.
    pub fn buffer(&mut self, slot: usize) -> Outcome<&mut [u8]> {
        ensure(!self.flying[slot], || format!("slot {slot} is in flight"))?;
        Ok(&mut self.buffers[slot])
    }

    /// Starts to read into a slot's buffer.
    ///
    /// # Errors
    /// When libnbd refuses.
    pub fn read(&mut self, slot: usize, offset: u64) -> Outcome {
        self.transfer(self.library.pread, slot, offset)
    }

    /// Starts to write a slot's buffer.
    ///
    /// # Errors
    /// When libnbd refuses.
    pub fn write(&mut self, slot: usize, offset: u64) -> Outcome {
        self.transfer(self.library.pwrite, slot, offset)
    }

    fn transfer(&mut self, function: Transfer, slot: usize, offset: u64) -> Outcome {
        let buffer = self.buffer(slot)?;
        let (data, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let user_data = (&raw const self.slots[slot]).cast_mut().cast();
        let callback = Callback { call: completed, user_data, free: None };
        // SAFETY: the buffer is neither touched nor freed before the command is finished or the handle closed.
        let cookie = unsafe { function(self.handle, data, len, offset, callback, 0) };
        ensure(cookie != -1, || self.library.failure("start a command").to_string())?;
        self.flying[slot] = true;
        self.in_flight += 1;
        Ok(())
    }

    /// Waits for a finished command, and takes with it all others whose replies have arrived.
    ///
    /// # Errors
    /// When a command failed, or the server is gone or silent.
    pub fn finished(&mut self) -> Outcome<Vec<usize>> {
        while self.count() == 0 {
            // SAFETY: the handle is open.
            match unsafe { (self.library.poll)(self.handle, PATIENCE_MS) } {
                1 => {}
                0 => return Err(Failure::new("the server is silent")),
                _ => return Err(self.library.failure("wait for a reply")),
            }
        }
        // Further replies without asking the kernel first whether there are any.
        let mut before = 0;
        while self.count() > before && self.count() < self.in_flight {
            before = self.count();
            // SAFETY: the handle is open.
            let read = unsafe {
                if (self.library.direction)(self.handle) & WAITS_TO_WRITE != 0 {
                    break;
                }
                (self.library.notify_read)(self.handle)
            };
            ensure(read == 0, || self.library.failure("read a reply").to_string())?;
        }
        let finished = self.finished.take();
        let mut slots = Vec::with_capacity(finished.len());
        for (slot, error) in finished {
            ensure(error == 0, || format!("a command failed with errno {error}"))?;
            self.flying[slot] = false;
            self.in_flight -= 1;
            slots.push(slot);
        }
        Ok(slots)
    }

    fn count(&self) -> usize {
        self.finished.borrow().len()
    }

    /// Says good-bye.
    ///
    /// # Errors
    /// When the server does not take it.
    pub fn close(self) -> Outcome {
        // SAFETY: the handle is open.
        let gone = unsafe { (self.library.shutdown)(self.handle, 0) };
        ensure(gone == 0, || self.library.failure("disconnect").to_string())
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and the buffers and slots that commands use are dropped after this.
        unsafe { (self.library.close)(std::mem::replace(&mut self.handle, ptr::null_mut())) };
    }
}
