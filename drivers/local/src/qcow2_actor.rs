// SPDX-License-Identifier: Apache-2.0
//! The thread that owns an image.
//!
//! A panic leaves the image in a state that nobody knows. Then the volume is given up: the image is dropped, its file takes
//! no more changes, and every operation but detaching fails until the volume is attached anew. That reads the file as
//! after a killed process: what was acknowledged is in it, because every change is written back before.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use driver_api::{Error, Result};
use tokio::sync::oneshot;

use crate::{
    disk::Disk,
    error::{detached, internal, panicked},
    qcow2::Image,
};

type Command = Box<dyn FnOnce(&mut Held) + Send>;

/// The image as its thread holds it.
struct Held {
    /// The image, or why there is none any more.
    image: Result<Image>,
    disk: Arc<Disk>,
}

impl Held {
    fn run<T>(&mut self, work: impl FnOnce(Result<&mut Image>) -> Result<T>) -> Result<T> {
        let image = self.disk.check().and_then(|()| self.image.as_mut().map_err(|why| why.clone()));
        catch_unwind(AssertUnwindSafe(|| work(image)))
            .unwrap_or_else(|payload| Err(self.give_up(payload)))
    }

    fn give_up(&mut self, payload: Box<dyn Any + Send>) -> Error {
        let why = panicked(self.disk.volume(), payload);
        let broken = std::mem::replace(&mut self.image, Err(self.disk.give_up(&why)));
        // Dropping writes nothing, but what is left of the image may panic again.
        if catch_unwind(AssertUnwindSafe(|| drop(broken))).is_err() {
            tracing::error!(volume = self.disk.volume(), "a broken image is not freed");
        }
        why
    }
}

/// The thread that owns an image.
pub(crate) struct Actor {
    volume: String,
    commands: Mutex<Option<mpsc::Sender<Command>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Actor {
    /// Opens the image in `disk` on a new thread. May block.
    pub fn start(disk: Arc<Disk>, writable: bool) -> Result<(Self, u64)> {
        let volume = disk.volume().to_owned();
        let (commands, queue) = mpsc::channel::<Command>();
        let (opened, answer) = mpsc::channel();
        let thread = std::thread::Builder::new().name("nova-local-qcow2".into()).spawn(move || {
            let image = Image::open(Arc::clone(&disk), writable);
            // The starter waits for exactly this.
            let _ = opened.send(image.as_ref().map(Image::size).map_err(Error::clone));
            if image.is_ok() {
                let mut held = Held { image, disk };
                while let Ok(command) = queue.recv() {
                    command(&mut held);
                }
            }
        });
        let thread = thread.map_err(|error| Error::from_io("a thread does not start", &error))?;
        let size = answer.recv().map_err(|_| internal("the qcow2 code panicked"))??;
        let (commands, thread) = (Mutex::new(Some(commands)), Mutex::new(Some(thread)));
        Ok((Self { volume, commands, thread }, size))
    }

    /// Runs `work` after everything that was asked before; to its end, even if nobody waits for the answer. It gets the
    /// image, or an error once the attachment was taken over or the volume given up.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Result<&mut Image>) -> Result<T> + Send + 'static,
    ) -> oneshot::Receiver<Result<T>> {
        let (answer, receiver) = oneshot::channel();
        // Nobody waits any more: the operation's effect counts, not its answer. So for every answer here.
        match &*self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(commands) => {
                // A thread that has ended drops the command, and with it the answer's sender.
                let _ = commands.send(Box::new(move |held| {
                    let _ = answer.send(held.run(work));
                }));
            }
            None => {
                let _ = answer.send(Err(detached(&self.volume)));
            }
        }
        receiver
    }

    /// Ends the thread after everything that was asked before. May block.
    pub fn stop(&self) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(volume = self.volume, "a qcow2 volume's thread panicked");
        }
    }
}
