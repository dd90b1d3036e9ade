// SPDX-License-Identifier: Apache-2.0
//! One operation after the other: what is written is read, and nothing else changes.

use driver_api::{Abilities, ErrorKind, IoBuf, IoBufMut, WriteFlags};

use crate::{
    case::Case,
    checks::contents::Contents,
    volume::{Checked, answer, broken, ensure, refusal, success},
};

pub(super) async fn new_reads_zeros(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    vol.expect_zeros(0, case.plan.volume_size, "in a new volume").await
}

pub(super) async fn alignments(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    let mut edges = vec![0, block];
    edges.extend(
        [512, 4096, 65536].iter().flat_map(|edge| [edge - block.min(*edge), *edge, edge + block]),
    );
    edges.retain(|edge| edge % block == 0);
    edges.sort_unstable();
    edges.dedup();
    for from in &edges {
        for to in edges.iter().filter(|to| *to > from) {
            contents.write(*from, to - from).await?;
            contents.expect_around(*from, to - from).await?;
        }
    }
    for _ in 0..case.plan.rounds(200) {
        let (at, len) = contents.place(128 << 10, block);
        contents.write(at, len).await?;
        contents.expect_around(at, len).await?;
    }
    contents.expect("after writes at all alignments").await
}

pub(super) async fn boundaries(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (size, block) = (case.plan.volume_size, u64::from(vol.caps.min_block));
    let data = case.random().bytes(block * 2);
    let (head, tail) = data.split_at(block as usize);
    vol.write(size - block, head).await?;
    vol.expect(size - block, head, "in the last block").await?;
    let beyond = u64::MAX - u64::MAX % block;
    for at in [size - block, size, size + block, beyond - block, beyond] {
        if at == size - block || at == beyond - block {
            let answer = vol.try_write(at, &data, WriteFlags::NONE).await?;
            refusal(
                &format!("a write across the end, at {at}"),
                answer,
                &[ErrorKind::OUT_OF_RANGE],
            )?;
            let answer = vol.try_read(at, block * 2).await?;
            refusal(
                &format!("a read across the end, at {at}"),
                answer,
                &[ErrorKind::OUT_OF_RANGE],
            )?;
        } else {
            let answer = vol.try_write(at, tail, WriteFlags::NONE).await?;
            refusal(&format!("a write past the end, at {at}"), answer, &[ErrorKind::OUT_OF_RANGE])?;
            let answer = vol.try_read(at, block).await?;
            refusal(&format!("a read past the end, at {at}"), answer, &[ErrorKind::OUT_OF_RANGE])?;
        }
    }
    ensure(vol.size()? == size, || "a write past the end changed the size".to_owned())?;
    vol.expect(size - block, head, "after refused writes").await?;
    vol.expect_zeros(0, (1 << 20).min(size - block), "at the start after refused writes").await
}

pub(super) async fn zero_length(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 64 << 10, case.random());
    contents.fill().await?;
    let allowed = [ErrorKind::INVALID_ARGUMENT];
    for at in [0, 4096 * u64::from(vol.caps.min_block.div_ceil(4096))] {
        let answer = vol.try_write(at, &[], WriteFlags::NONE).await?;
        if answer.is_err() {
            refusal("a write of nothing", answer, &allowed)?;
        }
        let answer = vol.try_read(at, 0).await?;
        if answer.is_err() {
            refusal("a read of nothing", answer, &allowed)?;
        }
    }
    contents.expect("after operations of no length").await
}

pub(super) async fn prefetch(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let (size, block) = (case.plan.volume_size, u64::from(vol.caps.min_block));
    if !vol.caps.has(Abilities::PREFETCH) {
        let answer = vol.try_prefetch(0, block).await?;
        let refused = refusal(
            "a prefetch, which the volume does not claim,",
            answer,
            &[ErrorKind::UNSUPPORTED],
        );
        return refused.map(drop);
    }
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    contents.fill().await?;
    for (at, len) in [(0, block), (block, 128 << 10), (0, size), (size - block, block)] {
        success("a prefetch", vol.try_prefetch(at, len).await?)?;
    }
    for at in [size, size - block] {
        let answer = vol.try_prefetch(at, block * 2).await?;
        refusal("a prefetch across the end", answer, &[ErrorKind::OUT_OF_RANGE])?;
    }
    contents.expect("after prefetches").await
}

pub(super) async fn max_io(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let block = u64::from(vol.caps.min_block);
    let len = u64::from(vol.caps.max_io).min(case.plan.volume_size).min(64 << 20);
    let len = len - len % block;
    let data = case.random().bytes(len);
    vol.write(0, &data).await?;
    let back = vol.read(0, len).await?;
    let differs = (0..data.len()).find(|at| back[*at] != data[*at]);
    differs
        .map_or(Ok(()), |at| broken(format!("of {len} bytes written at once, byte {at} differs")))
}

pub(super) async fn write_flags(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let data = case.random().bytes(case.sector());
    for bit in [3, 4, 15, 31] {
        let flags = WriteFlags::from_bits(1 << bit);
        let answer = vol.try_write(0, &data, flags).await?;
        refusal(&format!("a write with flag {bit}"), answer, &[ErrorKind::INVALID_ARGUMENT])?;
    }
    vol.expect_zeros(0, case.sector(), "after refused writes").await
}

pub(super) async fn read_your_writes(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 2 << 20, case.random());
    for round in 0..case.plan.rounds(400) {
        let (at, len) = contents.place(64 << 10, vol.sector());
        contents.write(at, len).await?;
        contents.expect_around(at, len).await?;
        if round % 64 == 0 {
            vol.flush().await?;
        }
    }
    contents.expect("after many writes").await
}

pub(super) async fn isolation(case: &Case<'_>) -> Checked {
    let mut random = case.random();
    let mut volumes = Vec::new();
    for index in 0..3 {
        volumes.push(case.fresh_sized(&format!("v{index}"), 4 << 20).await?);
    }
    let places: Vec<u64> = (0..8).map(|index| index * (512 << 10)).collect();
    let mut written = Vec::new();
    for vol in &volumes {
        for at in &places {
            let data = random.bytes(vol.sector().max(4096));
            vol.write(*at, &data).await?;
            written.push((vol, *at, data));
        }
    }
    for (vol, at, data) in written {
        vol.expect(at, &data, "after writes to other volumes").await?;
    }
    Ok(())
}

pub(super) async fn read_buffers(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut random = case.random();
    let len = vol.sector().max(4096);
    let places = [0, len, 64 << 10, 1 << 20];
    let mut kept: Vec<(IoBuf, Vec<u8>)> = Vec::new();
    for round in 0..4 {
        for at in places {
            let data = random.bytes(len);
            vol.write(at, &data).await?;
            kept.push((vol.read(at, len).await?, data));
        }
        if round == 2 {
            vol.flush().await?;
        }
    }
    kept.push((vol.read(2 << 20, len).await?, vec![0; len as usize]));
    vol.write(2 << 20, &random.bytes(len)).await?;
    vol.detach().await?;
    let stable = kept.iter().all(|(buffer, data)| buffer[..] == data[..]);
    ensure(stable, || "what a read had returned changed with a later write".to_owned())
}

pub(super) async fn write_buffers(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut random = case.random();
    let mut given = Vec::new();
    for at in 0..8 {
        let data = random.bytes(vol.sector() * (at + 1));
        let buffer = IoBuf::copy_from(&data);
        let op = vol.handle.write(&vol.cx(), at << 17, buffer.clone(), WriteFlags::NONE);
        success("write", answer(vol.deadline, "write", op).await?)?;
        given.push((buffer, data));
    }
    vol.flush().await?;
    let changed = given.iter().any(|(buffer, data)| buffer[..] != data[..]);
    ensure(!changed, || "the driver changed a buffer that it was given to write".to_owned())?;
    vol.detach().await?;
    case.delete(&vol.name).await?;
    drop(vol);
    case.forget_attachments();
    let patience =
        std::time::Instant::now() + case.plan.deadline.min(std::time::Duration::from_secs(5));
    while given.iter().any(|(buffer, _)| !buffer.is_unique()) {
        ensure(std::time::Instant::now() < patience, || {
            "a written buffer was still held seconds after its volume was deleted".to_owned()
        })?;
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

pub(super) async fn fua(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let data = case.random().bytes(vol.sector() * 4);
    for at in [0, vol.sector(), 1 << 20] {
        let written = vol.try_write(at, &data, WriteFlags::FUA).await?;
        success("a write with FUA", written)?;
        vol.expect(at, &data, "after a write with FUA").await?;
    }
    Ok(())
}

/// Memory as a host has it: with the remains of an earlier request.
extern "C" fn stale_buffer(len: usize) -> IoBufMut {
    let mut buffer = IoBufMut::zeroed(len);
    buffer.fill(0xee);
    buffer
}

pub(super) async fn host_buffers(case: &Case<'_>) -> Checked {
    let vol = case.fresh("v").await?;
    let mut contents = Contents::new(&vol, 1 << 20, case.random());
    for _ in 0..8 {
        let (at, len) = contents.place(24 << 10, vol.sector());
        contents.write(at, len).await?;
    }
    let cx = vol.cx().with_allocator(stale_buffer);
    for round in 0..case.plan.rounds(100) {
        let (at, len) = match round {
            0 => (0, 64 << 10),
            _ => contents.place(96 << 10, vol.sector()),
        };
        let len = len.min(u64::from(vol.caps.max_io));
        let op = vol.handle.read(&cx, at, len as u32);
        let found = success("read", answer(vol.deadline, "read", op).await?)?;
        let wanted = &contents.wanted[at as usize..(at + len) as usize];
        ensure(found[..] == *wanted, || {
            format!("a read of {len} bytes at {at} into a lent buffer is not what was written")
        })?;
    }
    Ok(())
}
