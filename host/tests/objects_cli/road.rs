// SPDX-License-Identifier: Apache-2.0
//! The road between command and host.

use std::{
    fs::File,
    io::{IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use novastor::api::handover;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// What goes wrong on the road.
#[derive(Default)]
struct Weather {
    /// Nobody comes through.
    closed: bool,
    /// Files that are handed over do not come through.
    robbers: bool,
    /// Files that came through.
    files: usize,
    /// The answers to the next requests that have this text in their head are lost, so many of them.
    lost: Option<(String, usize)>,
    /// A bit is turned in the body of the next request that has this text in its head.
    damaged: Option<String>,
    travellers: Vec<UnixStream>,
}

/// A socket that leads to another one.
#[derive(Clone)]
pub struct Road(Arc<Mutex<Weather>>);

impl Road {
    pub fn new(from: &Path, to: &Path) -> Self {
        let (road, to) = (Self(Arc::default()), to.to_owned());
        let (listener, all) = (UnixListener::bind(from).unwrap(), road.clone());
        thread::spawn(move || {
            for traveller in listener.incoming() {
                all.lead(traveller.unwrap(), &to);
            }
        });
        road
    }

    /// Ends whatever is under way, and lets nobody through.
    pub fn close(&self) {
        let mut weather = self.0.lock().unwrap();
        weather.closed = true;
        for traveller in weather.travellers.drain(..) {
            let _ = traveller.shutdown(Shutdown::Both);
        }
    }

    pub fn open(&self) {
        self.0.lock().unwrap().closed = false;
    }

    /// Loses the answers to the next requests with this text in their head; the host does them.
    pub fn lose(&self, text: &str, answers: usize) {
        self.0.lock().unwrap().lost = Some((text.to_owned(), answers));
    }

    /// Lets bytes through, and no files.
    pub fn rob(&self) {
        self.0.lock().unwrap().robbers = true;
    }

    /// How many files came through.
    pub fn files(&self) -> usize {
        self.0.lock().unwrap().files
    }

    /// Whether all answers that were to be lost are.
    pub fn has_lost(&self) -> bool {
        self.0.lock().unwrap().lost.is_none()
    }

    /// Turns a bit in the body of the next request with this text in its head.
    pub fn damage(&self, text: &str) {
        self.0.lock().unwrap().damaged = Some(text.to_owned());
    }

    pub fn has_damaged(&self) -> bool {
        self.0.lock().unwrap().damaged.is_none()
    }

    fn lead(&self, client: UnixStream, to: &PathBuf) {
        let Ok(host) = UnixStream::connect(to) else { return };
        let mut weather = self.0.lock().unwrap();
        if weather.closed {
            return;
        }
        weather.travellers.extend([client.try_clone().unwrap(), host.try_clone().unwrap()]);
        drop(weather);
        let losing = Arc::new(Mutex::new(false));
        let (road, there, back) = (self.clone(), Arc::clone(&losing), losing);
        let (from, mut into) = (client.try_clone().unwrap(), host.try_clone().unwrap());
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Some((len, file)) = come(&from, &mut buffer) {
                if let Some(file) = file.filter(|_| !road.0.lock().unwrap().robbers) {
                    road.0.lock().unwrap().files += 1;
                    let place = u64::from_le_bytes(buffer[..len].try_into().unwrap());
                    handover::give(&into, &file, place).unwrap();
                    continue;
                }
                *there.lock().unwrap() |= road.loses(&buffer[..len]);
                road.damages(&mut buffer[..len]);
                if into.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
            let _ = into.shutdown(Shutdown::Write);
        });
        let (mut from, mut into) = (host, client);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(len @ 1..) = from.read(&mut buffer) {
                if *back.lock().unwrap() || into.write_all(&buffer[..len]).is_err() {
                    break;
                }
            }
            let _ = into.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }

    fn loses(&self, bytes: &[u8]) -> bool {
        let mut weather = self.0.lock().unwrap();
        let Some((text, left)) = &mut weather.lost else { return false };
        if !has(bytes, text) {
            return false;
        }
        *left -= 1;
        if *left == 0 {
            weather.lost = None;
        }
        true
    }

    fn damages(&self, bytes: &mut [u8]) {
        let mut weather = self.0.lock().unwrap();
        let Some(text) = &weather.damaged else { return };
        // The head may travel alone: what comes next is looked at then, which has the head's mark still set.
        if has(bytes, text) {
            weather.damaged = Some(String::new());
        }
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
        let is_met = weather.damaged.as_deref() == Some("");
        let body = end.unwrap_or(0);
        if is_met && body < bytes.len() {
            bytes[body + (bytes.len() - body) / 2] ^= 0x10;
            weather.damaged = None;
        }
    }
}

/// What comes next, and the file with it; none at the end.
fn come(from: &UnixStream, buffer: &mut [u8]) -> Option<(usize, Option<File>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(buffer)];
    let came = recvmsg(from, &mut parts, &mut with, RecvFlags::CMSG_CLOEXEC).ok()?;
    let file = with.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    (came.bytes > 0).then(|| (came.bytes, file.map(File::from)))
}

fn has(bytes: &[u8], text: &str) -> bool {
    text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
