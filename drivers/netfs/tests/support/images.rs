// SPDX-License-Identifier: Apache-2.0
//! Images as qemu-img makes and judges them.

use std::{path::Path, process::Command};

use driver_api::{Backend, VolumeSpec};
use netfs::{NetfsBackend, NetfsVolume};

use super::{CX, attach};

/// Runs qemu-img; gives its code and what it said.
pub fn qemu_img(arguments: &[&str]) -> (i32, String) {
    let output = Command::new("qemu-img").args(arguments).output().expect("qemu-img");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.code().expect("a code"), said)
}

/// The same, which has to succeed.
pub fn qemu_img_succeeds(arguments: &[&str]) -> String {
    let (code, said) = qemu_img(arguments);
    assert_eq!(code, 0, "{arguments:?}: {said}");
    said
}

/// Asserts that an image has no flaw at all; with `leaks`, that it has none but lost space.
pub fn check(image: &Path, leaks: bool) {
    let (code, said) = qemu_img(&["check", "-f", "qcow2", &image.display().to_string()]);
    assert!(code == 0 || leaks && code == 3, "{}: {said}", image.display());
}

/// A new volume in an image, attached.
pub async fn made_image(backend: &NetfsBackend, name: &str, size: u64) -> NetfsVolume {
    let _ = backend.delete(&CX, name).await;
    let spec = VolumeSpec::new(name, size).option("format", "qcow2");
    backend.create(&CX, spec).await.expect("created");
    attach(backend, name, 1).await
}
