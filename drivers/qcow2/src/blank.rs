// SPDX-License-Identifier: Apache-2.0
//! An empty image, made in memory: its few clusters are then written wherever the image is to be.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt;
use imago::{
    FormatCreateBuilder, Storage,
    io_buffers::{IoVector, IoVectorMut},
    qcow2::Qcow2,
    storage::{PreallocateMode, drivers::CommonStorageHelper},
};

/// The file that clusters come from which the image does not have.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    /// Its name, in the directory of the image.
    pub name: &'a str,
    /// `raw` or `qcow2`.
    pub format: &'a str,
}

/// The bytes of an image of this size that has no clusters.
pub fn blank(size: u64, base: Option<Base<'_>>) -> io::Result<Vec<u8>> {
    let memory = Memory::default();
    let content = Arc::clone(&memory.content);
    let mut builder = Qcow2::<Memory>::create_builder(memory).size(size);
    if let Some(Base { name, format }) = base {
        builder = builder.backing(name.to_owned(), format.to_owned());
    }
    // Memory is never waited for; a task that has done much already would be made to, by the locks that imago takes.
    let created = tokio::task::unconstrained(builder.create()).now_or_never();
    created.unwrap_or_else(|| Err(io::Error::other("imago waits for memory")))?;
    let mut content = content.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *content))
}

/// A file in memory.
#[derive(Default)]
struct Memory {
    content: Arc<Mutex<Vec<u8>>>,
    helper: CommonStorageHelper,
}

impl Memory {
    fn content(&self) -> MutexGuard<'_, Vec<u8>> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("memory")
    }
}

impl Storage for Memory {
    fn size(&self) -> io::Result<u64> {
        Ok(self.content().len() as u64)
    }

    async unsafe fn pure_readv(&self, bufv: IoVectorMut<'_>, offset: u64) -> io::Result<()> {
        let (content, mut at) = (self.content(), offset as usize);
        for mut slice in bufv.into_inner() {
            let there = content.get(at..).unwrap_or_default();
            let there = &there[..there.len().min(slice.len())];
            slice[..there.len()].copy_from_slice(there);
            slice[there.len()..].fill(0);
            at += slice.len();
        }
        Ok(())
    }

    async unsafe fn pure_writev(&self, bufv: IoVector<'_>, offset: u64) -> io::Result<()> {
        let (mut content, mut at) = (self.content(), offset as usize);
        for slice in bufv.into_inner() {
            let end = at + slice.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[at..end].copy_from_slice(&slice);
            at = end;
        }
        Ok(())
    }

    async fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    async unsafe fn invalidate_cache(&self) -> io::Result<()> {
        Ok(())
    }

    fn get_storage_helper(&self) -> &CommonStorageHelper {
        &self.helper
    }

    async fn resize(&self, new_size: u64, _mode: PreallocateMode) -> io::Result<()> {
        self.content().resize(new_size as usize, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::blank;

    #[tokio::test]
    async fn an_empty_image_is_made_in_a_task_that_has_done_much() {
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        blank(1 << 20, None).expect("an image");
    }

    #[test]
    fn an_empty_image_is_small_whatever_its_size() {
        let small = blank(1 << 20, None).expect("an image");
        let large = blank(1 << 44, None).expect("an image");
        assert!(small.len() <= 4 << 16, "{}", small.len());
        assert!(large.len() <= 8 << 16, "{}", large.len());
    }
}
