// SPDX-License-Identifier: Apache-2.0
//! Every client on one way to an export of zeros.

use std::{fs, path::Path};

use serde_json::Value;

use super::{relay::Relay, way::Way};
use crate::{
    clients,
    failure::{Context, Failure, Outcome, ensure},
    libnbd::Libnbd,
    program::Said,
    random::Random,
};

const MIB: u64 = 1 << 20;
/// Bytes of the image that is copied; the export is as large.
pub const SIZE: u64 = 16 * MIB;

/// What nbdinfo should find that the export can.
const ABLE: &[&str] = &[
    "connect",
    "flush",
    "fua",
    "trim",
    "zero",
    "fast-zero",
    "multi-conn",
    "cache",
    "df",
    "extended-headers",
    "structured-reply",
];

/// Plays all of them; `scratch` is a directory for images.
///
/// # Errors
/// When a client fails, or finds other bytes than were written.
pub fn play(libnbd: &Libnbd, way: &Way, image: &Path, scratch: &Path, long: bool) -> Outcome {
    fs::create_dir_all(scratch).context(scratch.display())?;
    nbdinfo(libnbd, way).context("nbdinfo")?;
    qemu_io(way).context("qemu-io")?;
    qemu_img(way, image, scratch, long).context("qemu-img")?;
    nbdcopy(libnbd, way, image, scratch).context("nbdcopy")?;
    libnbd.script("every_call.py").arg(&way.uri).run().context("nbdsh")?;
    fio(way, scratch, long).context("fio")
}

fn nbdinfo(libnbd: &Libnbd, way: &Way) -> Outcome {
    let ask = |words: &[&str]| libnbd.program("nbdinfo").args(words).arg(&way.uri);
    let json = |words: &[&str]| -> Outcome<Value> {
        let said = ask(words).run()?;
        serde_json::from_str(&said.stdout).context(said.stdout)
    };
    let said = json(&["--json"])?;
    let export = &said["exports"][0];
    ensure(
        said["protocol"] == "newstyle-fixed"
            && said["TLS"] == way.encrypted
            && said["extended"] == true
            && export["export-size"] == SIZE
            && export["is_read_only"] == false,
        || format!("it says {said}"),
    )?;
    ensure(ask(&["--size"]).run()?.stdout.trim() == SIZE.to_string(), || "--size".to_owned())?;
    for can in ABLE {
        ask(&["--can", can]).run()?;
    }
    ask(&["--isnt", "read-only"]).run()?;
    ask(&["--can", "tls"]).codes(if way.encrypted { &[0] } else { &[2] }).run()?;
    let map = json(&["--map", "--json"])?;
    let extents = map.as_array().ok_or_else(|| Failure::new(format!("--map says {map}")))?;
    let mapped: u64 = extents.iter().filter_map(|extent| extent["length"].as_u64()).sum();
    ensure(mapped == SIZE && extents[0]["description"] == "hole,zero", || {
        format!("--map says {map}")
    })?;
    let listed = json(&["--list", "--json"])?;
    let exports = listed["exports"].as_array().map_or(&[][..], Vec::as_slice);
    ensure(exports.iter().any(|export| export["export-name"] == "disk"), || {
        format!("--list says {listed}")
    })
}

/// qemu-io exits with 0 when a pattern differs, so that its words count.
fn fine(said: &Said) -> Outcome {
    let text = format!("{}{}", said.stdout, said.stderr);
    let bad =
        ["failed", "error", "can't", "not "].iter().any(|word| text.to_lowercase().contains(word));
    ensure(!bad, || text.clone())
}

fn qemu_io(way: &Way) -> Outcome {
    let commands = [
        "read -P 0 0 16M",
        "write -P 0xa1 0 1M",
        "read -P 0xa1 0 1M",
        "write -f -P 0xa2 1k 3k",
        "read -P 0xa2 1k 3k",
        "read -P 0xa1 0 1k",
        "discard 64k 64k",
        "read -P 0 64k 64k",
        "write -z 256k 64k",
        "read -P 0 256k 64k",
        "write -z -u 512k 64k",
        "read -P 0 512k 64k",
        "read -P 0xa1 576k 448k",
        "aio_write -P 0xa3 2M 64k",
        "aio_write -P 0xa4 3M 1M",
        "aio_flush",
        "flush",
        "read -P 0xa3 2M 64k",
        "read -P 0xa4 3M 1M",
    ];
    fine(&way.qemu_io(&commands).run()?)?;
    let wrong = fine(&way.qemu_io(&["read -P 0xa5 3M 1M"]).codes(&[]).run()?);
    ensure(wrong.is_err(), || "it does not see a wrong pattern".to_owned())
}

fn qemu_img(way: &Way, image: &Path, scratch: &Path, long: bool) -> Outcome {
    let said = way.qemu_img(&["info", "--output=json"]).run()?;
    let info: Value = serde_json::from_str(&said.stdout).context(said.stdout)?;
    ensure(info["virtual-size"] == SIZE, || format!("info says {info}"))?;
    way.qemu_img_from(image).run()?;
    let file = format!("driver=raw,file.driver=file,file.filename={}", image.display());
    way.qemu_img(&["compare", &file]).run()?;
    let back = scratch.join("from-qemu-img");
    convert_back(way, &back)?;
    clients::same_bytes(image, &back)?;
    let said = way.qemu_img(&["map", "--output=json"]).run()?;
    let map: Value = serde_json::from_str(&said.stdout).context(said.stdout)?;
    let extents = map.as_array().map_or(&[][..], Vec::as_slice);
    let sum = |data: bool| -> u64 {
        let of_kind = extents.iter().filter(|extent| extent["data"] == data);
        of_kind.filter_map(|extent| extent["length"].as_u64()).sum()
    };
    ensure(sum(true) + sum(false) == SIZE && sum(false) >= 4 * MIB, || format!("map says {map}"))?;
    if way.encrypted {
        // The benchmark takes no --object, and therefore no certificates.
        return Ok(());
    }
    let count = if long { "20000" } else { "1000" };
    way.qemu_img(&["bench", "-c", count, "-d", "16", "-s", "4096"]).run()?;
    way.qemu_img(&["bench", "-w", "-c", count, "-d", "16", "-s", "4096", "--flush-interval=64"])
        .run()?;
    // The writes of the benchmark must be seen.
    way.qemu_img(&["compare", &file]).codes(&[1]).run().map(drop)
}

/// Its target comes last, where other commands have the export.
fn convert_back(way: &Way, image: &Path) -> Outcome {
    let _ = fs::remove_file(image);
    way.qemu_img(&["convert", "-O", "raw"]).arg(image).run().map(drop)
}

fn nbdcopy(libnbd: &Libnbd, way: &Way, image: &Path, scratch: &Path) -> Outcome {
    let copy =
        |from: &dyn AsRef<std::ffi::OsStr>, to: &dyn AsRef<std::ffi::OsStr>, more: &[&str]| {
            libnbd.program("nbdcopy").args(more).arg(from).arg(to).run().map(drop)
        };
    for (name, more) in [("many", &["--flush"][..]), ("one", &["--synchronous", "--connections=1"])]
    {
        copy(&image, &way.uri, more)?;
        way.qemu_img(&[
            "compare",
            &format!("driver=raw,file.driver=file,file.filename={}", image.display()),
        ])
        .run()
        .context(name)?;
        let back = scratch.join(format!("from-nbdcopy-{name}"));
        copy(&way.uri, &back, more)?;
        clients::same_bytes(image, &back).context(name)?;
    }
    Ok(())
}

fn fio(way: &Way, scratch: &Path, long: bool) -> Outcome {
    if !way.encrypted {
        return fio_on(&way.uri, long);
    }
    // fio lets libnbd read no certificates; nbdkit has them, and is the client.
    let socket = scratch.join("nbdkit.sock");
    let parameters: Vec<_> = way.relayed.iter().map(String::as_str).collect();
    let relay = Relay::start(&socket, &[], &parameters)?;
    fio_on(&relay.uri(), long).context(format!("through nbdkit, which says:\n{}", relay.said()))
}

fn fio_on(uri: &str, long: bool) -> Outcome {
    let size = if long { "--size=16M" } else { "--size=4M" };
    for mode in [&["--rw=randwrite", "--bs=512-64k"][..], &["--rw=write", "--bs=256k"]] {
        let options =
            ["--iodepth=16", "--randrepeat=0", "--verify_backlog=64", "--end_fsync=1", size];
        let said = clients::fio("verified", uri, mode).args(options).run()?;
        clients::fio_saw_no_damage(&said)?;
    }
    Ok(())
}

/// An image of [`SIZE`] with random data, and holes between.
///
/// # Errors
/// When it cannot be written.
pub fn image(path: &Path, random: &mut Random) -> Outcome {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create_new(path).context(path.display())?;
    file.set_len(SIZE).context(path.display())?;
    for part in 0..SIZE / MIB {
        // Every third MiB is a hole.
        if part % 3 != 2 {
            let bytes: Vec<u8> = (0..MIB / 8).flat_map(|_| random.number().to_be_bytes()).collect();
            file.write_all_at(&bytes, part * MIB).context(path.display())?;
        }
    }
    Ok(())
}
