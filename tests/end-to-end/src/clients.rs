// SPDX-License-Identifier: Apache-2.0
//! The programs that users bring: qemu, libnbd, fio, e2fsprogs.

use std::path::Path;

use crate::{
    failure::{Context, Outcome, ensure},
    program::{Program, Said},
};

/// Copies a raw image onto an export that is as large.
///
/// # Errors
/// When qemu-img fails.
pub fn image_to_export(image: &Path, uri: &str) -> Outcome {
    let options = ["convert", "-n", "-f", "raw", "-O", "raw"];
    Program::new("qemu-img").args(options).arg(image).arg(uri).limit_secs(600).run().map(drop)
}

/// Copies an export into a new raw image.
///
/// # Errors
/// When qemu-img fails.
pub fn export_to_image(uri: &str, image: &Path) -> Outcome {
    let options = ["convert", "-f", "raw", "-O", "raw"];
    Program::new("qemu-img").args(options).arg(uri).arg(image).limit_secs(600).run().map(drop)
}

/// Lets qemu-img compare an image with an export.
///
/// # Errors
/// When they differ.
pub fn compare(image: &Path, uri: &str) -> Outcome {
    let options = ["compare", "-f", "raw", "-F", "raw"];
    Program::new("qemu-img").args(options).arg(image).arg(uri).limit_secs(600).run().map(drop)
}

/// Compares two files byte for byte.
///
/// # Errors
/// When they differ.
pub fn same_bytes(one: &Path, other: &Path) -> Outcome {
    Program::new("cmp").arg(one).arg(other).limit_secs(600).run().map(drop)
}

/// Makes a qcow2 image with the content of a raw one.
///
/// # Errors
/// When qemu-img fails.
pub fn qcow2_of(image: &Path, qcow2: &Path) -> Outcome {
    let options = ["convert", "-f", "raw", "-O", "qcow2"];
    Program::new("qemu-img").args(options).arg(image).arg(qcow2).limit_secs(600).run().map(drop)
}

/// Lets qemu-img judge a qcow2 image that nobody has open, and compare what is in it with a raw one.
///
/// # Errors
/// When there is an error in it, a cluster that nothing leads to, or another content.
pub fn sound_qcow2_of(image: &Path, qcow2: &Path) -> Outcome {
    sound_qcow2(qcow2)?;
    let options = ["compare", "-f", "raw", "-F", "qcow2"];
    Program::new("qemu-img").args(options).arg(image).arg(qcow2).limit_secs(600).run().map(drop)
}

/// Lets qemu-img judge a qcow2 image that nobody has open.
///
/// # Errors
/// When there is an error in it, or a cluster that nothing leads to.
pub fn sound_qcow2(qcow2: &Path) -> Outcome {
    // 3 is for lost clusters alone: those are an error here, too.
    let check = Program::new("qemu-img").args(["check", "-f", "qcow2"]).arg(qcow2);
    check.limit_secs(600).run().map(drop)
}

/// Copies with libnbd, over several connections where the server allows it.
///
/// # Errors
/// When nbdcopy fails.
pub fn nbdcopy(from: &str, to: &Path) -> Outcome {
    Program::new("nbdcopy").arg(from).arg(to).limit_secs(600).run().map(drop)
}

/// What `nbdinfo --json` says of an export.
///
/// # Errors
/// When it is not served, or the answer is no JSON.
pub fn nbdinfo(uri: &str) -> Outcome<serde_json::Value> {
    let said = Program::new("nbdinfo").args(["--json", uri]).run()?;
    let answer: serde_json::Value =
        serde_json::from_str(&said.stdout).context("answer of nbdinfo")?;
    Ok(answer["exports"][0].clone())
}

/// Runs one qemu-io command on an export. qemu-io exits with 0 when a pattern differs, so what it says counts.
///
/// # Errors
/// When the command fails or a pattern differs.
pub fn qemu_io(uri: &str, command: &str) -> Outcome {
    let said = Program::new("qemu-io").args(["-f", "raw", "-c", command, uri]).run()?;
    let text = said.stdout + &said.stderr;
    let bad = ["failed", "error", "can't"].iter().any(|word| text.to_lowercase().contains(word));
    ensure(!bad, || format!("qemu-io {command}: {text}"))
}

/// Makes an ext4 image of `size` bytes from a tree.
///
/// # Errors
/// When mkfs fails.
pub fn ext4_from_tree(image: &Path, size: u64, tree: &Path) -> Outcome {
    ext4(image, size, Some(tree))
}

/// Makes an empty ext4 image of `size` bytes, with a journal.
///
/// # Errors
/// When mkfs fails.
pub fn ext4_empty(image: &Path, size: u64) -> Outcome {
    ext4(image, size, None)
}

fn ext4(image: &Path, size: u64, tree: Option<&Path>) -> Outcome {
    let file = std::fs::File::create_new(image).context(image.display())?;
    file.set_len(size).context(image.display())?;
    let mut program = Program::new("mkfs.ext4").args([
        "-q",
        "-F",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
    ]);
    if let Some(tree) = tree {
        program = program.arg("-d").arg(tree);
    }
    program.arg(image).limit_secs(600).run().map(drop)
}

/// Checks a filesystem without changing it.
///
/// # Errors
/// When it is not clean.
pub fn fsck_clean(place: &Path) -> Outcome {
    Program::new("e2fsck").arg("-fn").arg(place).limit_secs(600).run().map(drop)
}

/// Replays a filesystem's journal as a boot would; exit 1 says that it did.
///
/// # Errors
/// When the filesystem needs more than that.
pub fn fsck_preen(place: &Path) -> Outcome {
    Program::new("e2fsck").arg("-fp").arg(place).codes(&[0, 1]).limit_secs(600).run().map(drop)
}

/// An fio job on an export: `name` and further options in fio's own words.
pub fn fio(name: &str, uri: &str, options: &[&str]) -> Program {
    Program::new("fio")
        .args([&format!("--name={name}"), "--ioengine=nbd", &format!("--uri={uri}")])
        .args(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0"])
        .args(options)
        .limit_secs(300)
}

/// Fails if an fio job that may break with its host also read back something that it did not write.
///
/// # Errors
/// When it did.
pub fn fio_saw_no_damage(said: &Said) -> Outcome {
    let text = format!("{}{}", said.stdout, said.stderr);
    ensure(!text.contains("verify: bad") && !text.contains("bad magic header"), || {
        format!("fio read damage back:\n{text}")
    })
}

#[cfg(test)]
mod tests {
    use super::fio_saw_no_damage;
    use crate::program::Said;

    #[test]
    fn damage_is_told_from_a_broken_connection() {
        let said =
            |stderr: &str| Said { code: 1, stdout: String::new(), stderr: stderr.to_owned() };
        assert!(fio_saw_no_damage(&said("fio: io_u error: Broken pipe")).is_ok());
        assert!(
            fio_saw_no_damage(&said(
                "crc32c: verify failed at file x\nverify: bad header rand_seed 1"
            ))
            .is_err()
        );
    }
}
