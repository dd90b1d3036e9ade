// SPDX-License-Identifier: Apache-2.0
//! Image files, raw and qcow2, read and written sparsely.
//!
//! Their futures stay on one thread, which may block: run them on a blocking thread.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use bytes::Bytes;
use driver_api::{Error, ErrorKind, IoBuf, IoBufMut, Result};
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, Mapping,
    StorageOpenOptions, file::File as ImageStorage, qcow2::Qcow2,
};
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use serde::{Deserialize, Serialize};

const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

/// How an image file is laid out.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// Found out from the file's first bytes; a new file becomes raw.
    #[default]
    Auto,
    /// The volume's bytes as they are, with holes.
    Raw,
    /// QEMU's format.
    Qcow2,
}

fn file_error(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::from_io(format!("{what}: {error}"), error).with("file", path.display())
}

/// An image that is read.
#[derive(Debug)]
pub(super) enum Source {
    Raw { file: File, size: u64 },
    Qcow2(Box<FormatAccess<ImageStorage>>),
}

impl Source {
    pub(super) async fn open(path: &Path, format: ImageFormat) -> Result<Self> {
        let failed = |error: std::io::Error| file_error("the image cannot be opened", path, &error);
        let file = File::open(path).map_err(failed)?;
        let facts = file.metadata().map_err(failed)?;
        if !facts.is_file() {
            return Err(Error::new(ErrorKind::INVALID_ARGUMENT, "it is not a regular file")
                .with("file", path.display())
                .remedy("name an image file"));
        }
        let mut magic = [0; 4];
        let is_qcow2 = file.read_exact_at(&mut magic, 0).is_ok() && magic == *QCOW2_MAGIC;
        match (format, is_qcow2) {
            (ImageFormat::Raw, _) | (ImageFormat::Auto, false) => {
                Ok(Self::Raw { file, size: facts.len() })
            }
            (ImageFormat::Qcow2, false) => {
                Err(Error::new(ErrorKind::INVALID_ARGUMENT, "it is not a qcow2 image")
                    .with("file", path.display())
                    .remedy("use --format raw, or auto"))
            }
            (_, true) => Self::open_qcow2(file, path).await,
        }
    }

    async fn open_qcow2(file: File, path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| {
            let mut failure = file_error("the qcow2 image cannot be opened", path, &error);
            // The gate below refuses other files: an image must not choose what the host reads.
            if error.kind() == std::io::ErrorKind::PermissionDenied {
                failure = failure.remedy(
                    "if it has a backing file, flatten it first: qemu-img convert -O qcow2",
                );
            }
            failure
        };
        let storage = ImageStorage::from_open_file(file, StorageOpenOptions::new())
            .map_err(|error| file_error("the image cannot be opened", path, &error))?;
        let image = Qcow2::<ImageStorage>::builder(storage)
            .open(DenyImplicitOpenGate::default())
            .await
            .map_err(failed)?;
        Ok(Self::Qcow2(Box::new(FormatAccess::new(image))))
    }

    pub(super) fn size(&self) -> u64 {
        match self {
            Self::Raw { size, .. } => *size,
            Self::Qcow2(image) => image.size(),
        }
    }

    /// Where the next data at or after `offset` begins, if there is any.
    pub(super) async fn next_data(&self, offset: u64) -> Result<Option<u64>> {
        match self {
            Self::Raw { file, size } => {
                if offset >= *size {
                    return Ok(None);
                }
                match seek(file, SeekFrom::Data(offset)) {
                    Ok(found) => Ok(Some(found)),
                    Err(Errno::NXIO) => Ok(None),
                    // A filesystem without the call has data everywhere.
                    Err(Errno::INVAL) => Ok(Some(offset)),
                    Err(error) => Err(Error::from_io("the image's holes", &error.into())),
                }
            }
            Self::Qcow2(image) => {
                let mut at = offset;
                while at < image.size() {
                    let mapped = image.get_mapping(at, image.size() - at).await;
                    match mapped.map_err(|error| Error::from_io("the image's map", &error))? {
                        (Mapping::Zero { .. }, len) if len > 0 => at += len,
                        (Mapping::Eof { .. }, _) => return Ok(None),
                        _ => return Ok(Some(at)),
                    }
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn read(&self, offset: u64, len: usize) -> Result<IoBuf> {
        let failed = |error: std::io::Error| Error::from_io("the image cannot be read", &error);
        match self {
            Self::Raw { file, .. } => {
                let mut buffer = IoBufMut::zeroed(len);
                file.read_exact_at(&mut buffer, offset).map_err(failed)?;
                Ok(buffer.freeze())
            }
            Self::Qcow2(image) => {
                let mut buffer = vec![0; len];
                image.read(&mut buffer, offset).await.map_err(failed)?;
                Ok(Bytes::from(buffer).into())
            }
        }
    }
}

/// A new image that is written.
#[derive(Debug)]
pub(super) enum Sink {
    Raw(File),
    Qcow2(Box<FormatAccess<ImageStorage>>),
}

impl Sink {
    /// Creates a file that must not exist yet; it reads zeros.
    pub(super) async fn create(path: &Path, format: ImageFormat, size: u64) -> Result<Self> {
        let failed =
            |error: std::io::Error| file_error("the image cannot be created", path, &error);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        if format != ImageFormat::Qcow2 {
            file.set_len(size).map_err(failed)?;
            return Ok(Self::Raw(file));
        }
        let options = StorageOpenOptions::new().write(true);
        let storage = ImageStorage::from_open_file(file, options).map_err(failed)?;
        let image = Qcow2::<ImageStorage>::create_builder(storage)
            .size(size)
            .create_open(DenyImplicitOpenGate::default(), |image| {
                Ok(Qcow2::<ImageStorage>::builder(image).backing(None).write(true))
            })
            .await
            .map_err(failed)?;
        Ok(Self::Qcow2(Box::new(FormatAccess::new(image))))
    }

    pub(super) async fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let written = match self {
            Self::Raw(file) => file.write_all_at(data, offset),
            Self::Qcow2(image) => image.write(data, offset).await,
        };
        written.map_err(|error| Error::from_io("the image cannot be written", &error))
    }

    /// Makes everything written durable.
    pub(super) async fn finish(&self) -> Result<()> {
        let synced = match self {
            Self::Raw(file) => file.sync_all(),
            Self::Qcow2(image) => match image.flush().await {
                Ok(()) => image.sync().await,
                Err(error) => Err(error),
            },
        };
        synced.map_err(|error| Error::from_io("the image cannot be made durable", &error))
    }
}
