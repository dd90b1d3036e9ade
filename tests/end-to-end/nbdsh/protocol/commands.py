# SPDX-License-Identifier: Apache-2.0
"""The commands, their flags and their heads."""

import struct

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, REFUSED, closes, errno, row, same

S = "commands"
# Where the checks write; the rest of the disk is as the scene filled it.
AREA = 8 << 20
MIB = 1 << 20


@row(S, "NBD_CMD_READ", 0, DONE)
def _(house):
    for more in ({}, {"compact": True}, {"simple": True}):
        handle = house.connect(strict=0, **more)
        same(handle.pread(MIB, 0), b"\x5a" * MIB)
        same(handle.pread(3, MIB - 2), b"\x5a\x5a\0")
        same(errno(handle.pread, 512, house.size - 511), "EINVAL")
        same(errno(handle.pread, 512, (1 << 64) - 512), "EINVAL")
        same(len(handle.pread(512, house.size - 512)), 512)


@row(S, "NBD_CMD_WRITE", 1, DONE)
def _(house):
    for byte, more in ((1, {}), (2, {"compact": True}), (3, {"simple": True})):
        handle = house.connect(strict=0, **more)
        handle.pwrite(bytes([byte]) * 70000, AREA + 100)
        same(handle.pread(70002, AREA + 99), b"\0" + bytes([byte]) * 70000 + b"\0")
        same(errno(handle.pwrite, b"x" * 512, house.size - 511), "ENOSPC")
        same(errno(handle.pwrite, b"x" * 512, 1 << 63), "ENOSPC")
        # Its data has gone by: the next request is understood.
        same(handle.pread(1, AREA + 100), bytes([byte]))
        handle.pwrite(bytes(70000), AREA + 100)


@row(S, "NBD_CMD_DISC", 2, DONE)
def _(house):
    for extended in (False, True):
        raw = house.serve(extended=extended)
        raw.send_request(wire.READ, 0, MIB, cookie=7)
        raw.send_request(wire.DISC)
        # What was asked before is answered, then the connection ends.
        read = b""
        while len(read) < MIB:
            chunk = raw.chunk(MIB)
            same((chunk.cookie, chunk.error), (7, 0))
            read += chunk.data[8:] if extended else chunk.data
        assert raw.ended()
    handle = house.connect()
    handle.shutdown()
    assert handle.aio_is_closed()


@row(S, "NBD_CMD_FLUSH", 3, DONE)
def _(house):
    handle = house.connect("faulty")
    handle.pwrite(b"\x11" * 512, 0)
    handle.flush()
    same(house.lose(), 0)
    same(handle.pread(512, 0), b"\x11" * 512)
    handle = house.connect("readonly", strict=0)
    handle.flush()


@row(S, "NBD_CMD_TRIM", 4, DONE)
def _(house):
    handle = house.connect(contexts=["base:allocation"], strict=0)
    handle.pwrite(b"\x22" * MIB, AREA)
    handle.flush()
    handle.trim(MIB, AREA)
    same(handle.pread(MIB, AREA), bytes(MIB))
    extents = []
    handle.block_status_64(MIB, AREA, lambda name, offset, found, error: extents.extend(found))
    assert extents[0][0] >= MIB and extents[0][1] & nbd.STATE_HOLE, extents
    same(errno(handle.trim, 512, house.size), "EINVAL")
    same(errno(house.connect("faulty", strict=0).trim, 512, 0), "EINVAL")


@row(S, "NBD_CMD_CACHE", 5, DONE)
def _(house):
    handle = house.connect(strict=0)
    handle.cache(MIB, 0)
    handle.cache(house.size, 0)
    same(errno(handle.cache, 512, house.size), "EINVAL")
    same(errno(house.connect("faulty", strict=0).cache, 512, 0), "EINVAL")


@row(S, "NBD_CMD_WRITE_ZEROES", 6, DONE)
def _(house):
    handle = house.connect(strict=0)
    handle.pwrite(b"\x33" * MIB, AREA)
    handle.zero(MIB - 1024, AREA + 512)
    same(handle.pread(MIB, AREA), b"\x33" * 512 + bytes(MIB - 1024) + b"\x33" * 512)
    same(errno(handle.zero, 512, house.size), "ENOSPC")
    same(errno(house.connect("faulty", strict=0).zero, 512, 0), "EINVAL")
    handle.zero(MIB, AREA)


@row(S, "NBD_CMD_BLOCK_STATUS", 7, DONE)
def _(house):
    for compact in (False, True):
        handle = house.connect(contexts=["base:allocation"], compact=compact, strict=0)
        found = []
        handle.block_status_64(4 * MIB, 0, lambda name, offset, extents, error: found.append((name, offset, extents)))
        name, offset, extents = found[0]
        same((name, offset, extents[0]), ("base:allocation", 0, (MIB, 0)))
        same(extents[1][1], nbd.STATE_HOLE | nbd.STATE_ZERO)
        same(errno(handle.block_status_64, 512, house.size, lambda *_: 0), "EINVAL")
        same(errno(handle.block_status_64, 0, 0, lambda *_: 0), "EINVAL")
    # Without a context there is nothing to be told.
    same(errno(house.connect(strict=0).block_status_64, 512, 0, lambda *_: 0), "EINVAL")
    with house.serve() as raw:
        same(raw.error(wire.BLOCK_STATUS, 0, 512), wire.EINVAL)


@row(S, "NBD_CMD_RESIZE", 8, NOT_OFFERED, "raw")
def _(house):
    for extended in (False, True):
        raw = house.serve(extended=extended)
        same(raw.error(wire.RESIZE, 0, 2 * MIB), wire.EINVAL)
        assert raw.alive()
    same(house.connect().get_size(), house.size)


@row(S, "commands that the document does not know", "9-", REFUSED, "raw")
def _(house):
    for extended in (False, True):
        raw = house.serve(extended=extended)
        for command in (9, 255, 65535):
            same(raw.error(command, 0, 512), wire.EINVAL)
        assert raw.alive()


@row(S, "requests of no length", "", REFUSED, "raw")
def _(house):
    # The document leaves them to the server.
    raw = house.serve(extended=True, contexts=["base:allocation"])
    for command in (wire.READ, wire.TRIM, wire.WRITE_ZEROES, wire.CACHE, wire.BLOCK_STATUS):
        same(raw.error(command, 0, 0), wire.EINVAL)
    assert raw.alive()


@row(S, "ranges beyond 4 GiB", "", DONE)
def _(house):
    handle = house.connect("huge", contexts=["base:allocation"])
    last = []
    handle.block_status_64(5 << 30, 0, lambda name, offset, extents, error: last.extend(extents))
    same(last[0], (house.huge, nbd.STATE_HOLE | nbd.STATE_ZERO) if last[0][0] > 5 << 30 else (5 << 30, 3))
    handle.pwrite(b"\x44" * 512, 5 << 30)
    handle.zero((5 << 30) + 4096, 0)
    same(handle.pread(512, 5 << 30), bytes(512))
    handle.pwrite(b"\x44" * 512, 5 << 30)
    handle.trim((5 << 30) + 4096, 0)
    handle.cache(5 << 30, 0)


S = "command flags"


@row(S, "NBD_CMD_FLAG_FUA", "bit 0", DONE)
def _(house):
    handle = house.connect("faulty", strict=0)
    handle.pwrite(b"\x55" * 512, 4096)
    handle.pwrite(b"\x66" * 512, 8192, nbd.CMD_FLAG_FUA)
    same(house.lose(), 512)
    same(handle.pread(512, 4096), bytes(512))
    same(handle.pread(512, 8192), b"\x66" * 512)
    house.reopen("faulty")
    handle = house.connect(strict=0)
    handle.zero(512, AREA, nbd.CMD_FLAG_FUA)
    handle.trim(512, AREA, nbd.CMD_FLAG_FUA)
    # Where it means nothing it does no harm; where it is not offered it is refused.
    same(house.serve().error(wire.READ, 0, 512, wire.FUA), 0)
    same(house.serve("readonly").error(wire.READ, 0, 512, wire.FUA), wire.EINVAL)


@row(S, "NBD_CMD_FLAG_NO_HOLE", "bit 1", DONE)
def _(house):
    handle = house.connect(contexts=["base:allocation"], strict=0)

    def status():
        found = []
        handle.block_status_64(MIB, AREA, lambda name, offset, extents, error: found.extend(extents))
        return found[0][1] & nbd.STATE_HOLE

    handle.zero(MIB, AREA, nbd.CMD_FLAG_NO_HOLE)
    same(status(), 0)
    same(handle.pread(MIB, AREA), bytes(MIB))
    handle.zero(MIB, AREA)
    handle.trim(MIB, AREA)
    same(status(), nbd.STATE_HOLE)
    same(errno(handle.pwrite, b"x" * 512, AREA, nbd.CMD_FLAG_NO_HOLE), "EINVAL")


@row(S, "NBD_CMD_FLAG_DF", "bit 2", DONE)
def _(house):
    handle = house.connect(strict=0)
    chunks = []
    data = handle.pread_structured(
        2 * MIB, 0, lambda part, offset, kind, error: chunks.append((offset, len(part), kind)), nbd.CMD_FLAG_DF
    )
    same(data, b"\x5a" * MIB + bytes(MIB))
    same(len(chunks), 1)
    same(errno(handle.pwrite, b"x" * 512, AREA, nbd.CMD_FLAG_DF), "EINVAL")
    # It belongs to structured replies.
    same(house.serve().error(wire.READ, 0, 512, wire.DF), wire.EINVAL)


@row(S, "NBD_CMD_FLAG_REQ_ONE", "bit 3", DONE)
def _(house):
    for compact in (False, True):
        handle = house.connect(contexts=["base:allocation"], compact=compact, strict=0)
        found = []
        handle.block_status_64(
            4 * MIB, 0, lambda name, offset, extents, error: found.append(list(extents)), nbd.CMD_FLAG_REQ_ONE
        )
        same(found, [[(MIB, 0)]])
        # One extent, and no longer than asked for.
        found.clear()
        handle.block_status_64(
            4096, 0, lambda name, offset, extents, error: found.append(list(extents)), nbd.CMD_FLAG_REQ_ONE
        )
        same(found, [[(4096, 0)]])
    same(errno(house.connect(strict=0).pwrite, b"x" * 512, AREA, nbd.CMD_FLAG_REQ_ONE), "EINVAL")


@row(S, "NBD_CMD_FLAG_FAST_ZERO", "bit 4", DONE)
def _(house):
    handle = house.connect(strict=0)
    handle.pwrite(b"\x77" * MIB, AREA)
    handle.zero(MIB, AREA, nbd.CMD_FLAG_FAST_ZERO)
    same(handle.pread(MIB, AREA), bytes(MIB))
    same(errno(handle.pwrite, b"x" * 512, AREA, nbd.CMD_FLAG_FAST_ZERO), "EINVAL")
    same(errno(house.connect("faulty", strict=0).zero, 512, 0, nbd.CMD_FLAG_FAST_ZERO), "EINVAL")


@row(S, "NBD_CMD_FLAG_PAYLOAD_LEN", "bit 5", DONE)
def _(house):
    # libnbd sets it by itself; without it a write is done all the same.
    for strict in (nbd.STRICT_MASK, 0):
        house.connect(strict=strict).pwrite(b"\x88" * 512, AREA)
    handle = house.connect(contexts=["base:allocation", "novastor:size"])
    found = []
    handle.block_status_filter(
        MIB, 0, ["novastor:size"], lambda name, offset, extents, error: found.append((name, list(extents)))
    )
    same([name for name, _ in found], ["novastor:size"])
    raw = house.serve(extended=True)
    # A write has its data's length in its head, and therefore the flag; nothing else has data.
    same(raw.error(wire.READ, 0, 512, wire.PAYLOAD_LEN, bytes(512)), wire.EINVAL)
    assert raw.alive()
    raw = house.serve()
    same(raw.error(wire.READ, 0, 512, wire.PAYLOAD_LEN), wire.EINVAL)
    assert raw.alive()


@row(S, "flags that the document does not know", "bits 6-15", REFUSED, "raw")
def _(house):
    for extended in (False, True):
        raw = house.serve(extended=extended)
        for bit in range(6, 16):
            same(raw.error(wire.READ, 0, 512, 1 << bit), wire.EINVAL)
            flags = 1 << bit | (wire.PAYLOAD_LEN if extended else 0)
            same(raw.error(wire.WRITE, AREA, 512, flags, bytes(512)), wire.EINVAL)
        assert raw.alive()


S = "requests"


@row(S, "compact request", "0x25609513", DONE)
def _(house):
    assert not house.connect(compact=True).get_extended_headers_negotiated()
    assert house.serve().alive() and house.serve(structured=True).alive()


@row(S, "extended request", "0x21e41c71", DONE)
def _(house):
    assert house.connect().get_extended_headers_negotiated()
    raw = house.serve(extended=True)
    chunks = raw.request(wire.READ, 4096, 512)
    same((chunks[0].offset, chunks[0].magic), (4096, wire.EXTENDED_REPLY_MAGIC))


@row(S, "a head that was not negotiated", "", REFUSED, "raw")
def _(house):
    raw = house.serve(extended=True)
    closes(raw, lambda: raw.send_request(wire.FLUSH, extended=False))
    raw = house.serve()
    closes(raw, lambda: raw.send_request(wire.FLUSH, extended=True))


@row(S, "a wrong magic number of a request", "", REFUSED, "raw")
def _(house):
    raw = house.serve()
    closes(raw, lambda: raw.send(struct.pack(">IHHQQI", wire.REQUEST_MAGIC ^ 1, 0, wire.FLUSH, 1, 0, 0)))


@row(S, "a write longer than the largest block", "", REFUSED, "raw")
def _(house):
    largest = house.connect().get_block_size(nbd.SIZE_MAXIMUM)
    for extended, flags in ((False, 0), (True, wire.PAYLOAD_LEN)):
        raw = house.serve(extended=extended)
        same(raw.error(wire.WRITE, AREA, largest + 512, flags, bytes(largest + 512)), wire.EINVAL)
        assert raw.alive()
