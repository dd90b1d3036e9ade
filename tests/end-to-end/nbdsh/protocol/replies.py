# SPDX-License-Identifier: Apache-2.0
"""The forms of a reply: simple, in chunks, and with extended heads."""

import struct

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, REFUSED, errno, row, same

S = "replies"
MIB = 1 << 20
FORMS = ({"structured": True}, {"extended": True})


@row(S, "simple reply", "0x67446698", DONE)
def _(house):
    same(house.connect(simple=True).pread(512, 0), b"\x5a" * 512)
    for command in (wire.READ, wire.FLUSH):
        same([chunk.magic for chunk in house.serve().request(command, 0, 0 if command else 512)], [wire.SIMPLE_REPLY_MAGIC])


@row(S, "structured reply chunk", "0x668e33ef", DONE)
def _(house):
    assert house.connect(compact=True).get_structured_replies_negotiated()
    raw = house.serve(structured=True)
    assert all(chunk.magic == wire.STRUCTURED_REPLY_MAGIC for chunk in raw.request(wire.READ, 0, 2 * MIB))


@row(S, "extended reply chunk", "0x6e8a278c", DONE)
def _(house):
    # Once negotiated, everything comes so: success, failure, what has no data.
    raw = house.serve(extended=True)
    for command, offset, length in ((wire.READ, 0, 2 * MIB), (wire.READ, 1 << 60, 512), (wire.FLUSH, 0, 0), (99, 3, 0)):
        for chunk in raw.request(command, offset, length):
            same((chunk.magic, chunk.offset), (wire.EXTENDED_REPLY_MAGIC, offset))


@row(S, "NBD_REPLY_FLAG_DONE", "bit 0", DONE, "raw")
def _(house):
    for form in FORMS:
        chunks = house.serve(**form).request(wire.READ, 0, 4 * MIB)
        same([chunk.flags for chunk in chunks], [0] * (len(chunks) - 1) + [wire.DONE])


@row(S, "NBD_REPLY_TYPE_NONE", 0, DONE, "raw")
def _(house):
    for chunk in house.serve(structured=True).request(wire.FLUSH):
        assert chunk.magic == wire.SIMPLE_REPLY_MAGIC or (chunk.kind, chunk.data) == (wire.T_NONE, b"")
    same(house.serve(extended=True).request(wire.FLUSH)[0].kind, wire.T_NONE)


@row(S, "NBD_REPLY_TYPE_OFFSET_DATA", 1, DONE)
def _(house):
    for compact in (False, True):
        chunks = []
        house.connect(compact=compact).pread_structured(
            MIB, 0, lambda data, offset, kind, error: chunks.append((offset, len(data), kind))
        )
        assert all(kind == nbd.READ_DATA for _, _, kind in chunks), chunks
        same(sum(length for _, length, _ in chunks), MIB)


@row(S, "NBD_REPLY_TYPE_OFFSET_HOLE", 2, DONE)
def _(house):
    for compact in (False, True):
        chunks = []
        data = house.connect(compact=compact).pread_structured(
            2 * MIB, 0, lambda data, offset, kind, error: chunks.append((offset, len(data), kind))
        )
        same(data, b"\x5a" * MIB + bytes(MIB))
        # Every byte once, in whatever order.
        assert (MIB, MIB, nbd.READ_HOLE) in chunks, chunks
        same(sum(length for _, length, _ in chunks), 2 * MIB)


@row(S, "NBD_REPLY_TYPE_BLOCK_STATUS", 5, DONE)
def _(house):
    raw = house.serve(structured=True, contexts=["base:allocation"])
    chunks = raw.request(wire.BLOCK_STATUS, 0, 4 * MIB)
    same([chunk.kind for chunk in chunks if chunk.kind != wire.T_NONE], [wire.T_BLOCK_STATUS])
    same(struct.unpack_from(">II", chunks[0].data, 4), (MIB, 0))
    found = []
    house.connect(compact=True, contexts=["base:allocation"]).block_status(
        4 * MIB, 0, lambda name, offset, entries, error: found.extend(entries)
    )
    same(found[:2], [MIB, 0])


@row(S, "NBD_REPLY_TYPE_BLOCK_STATUS_EXT", 6, DONE)
def _(house):
    raw = house.serve(extended=True, contexts=["base:allocation"])
    chunks = raw.request(wire.BLOCK_STATUS, 0, 4 * MIB)
    same([chunk.kind for chunk in chunks if chunk.kind != wire.T_NONE], [wire.T_BLOCK_STATUS_EXT])
    context, count, length, flags = struct.unpack_from(">IIQQ", chunks[0].data)
    same((length, flags), (MIB, 0))
    same(len(chunks[0].data), 8 + 16 * count)


@row(S, "BLOCK_STATUS with a payload", "", DONE, "raw")
def _(house):
    raw = house.raw().extend()
    verdict, ids = raw.contexts("disk", ["base:allocation", "novastor:size"])
    same((verdict, len(ids)), (wire.ACK, 2))
    same(raw.go("disk"), wire.ACK)

    def ask(length, *wanted, effect=4 * MIB):
        payload = struct.pack(f">Q{len(wanted)}I", effect, *wanted)
        assert length in (None, len(payload))
        return raw.request(wire.BLOCK_STATUS, 0, len(payload), wire.PAYLOAD_LEN, payload)

    for wanted in ([ids["base:allocation"]], [ids["novastor:size"]], list(ids.values())):
        chunks = [chunk for chunk in ask(None, *wanted) if chunk.kind == wire.T_BLOCK_STATUS_EXT]
        same(sorted(struct.unpack_from(">I", chunk.data)[0] for chunk in chunks), sorted(wanted))
    # Unknown, doubled, cut off: refused, and the connection lives.
    unknown = max(ids.values()) + 1000
    for wanted in ([unknown], [ids["base:allocation"]] * 2):
        same(ask(None, *wanted)[-1].error, wire.EINVAL)
    same(raw.error(wire.BLOCK_STATUS, 0, 7, wire.PAYLOAD_LEN, bytes(7)), wire.EINVAL)
    same(ask(None, ids["base:allocation"], effect=house.size + 1)[-1].error, wire.EINVAL)
    assert raw.alive()


@row(S, "BLOCK_STATUS with a payload, not negotiated", "", REFUSED, "raw")
def _(house):
    raw = house.serve(extended=True)
    payload = struct.pack(">QI", 4096, 0)
    same(raw.error(wire.BLOCK_STATUS, 0, len(payload), wire.PAYLOAD_LEN, payload), wire.EINVAL)
    assert raw.alive()


@row(S, "NBD_REPLY_TYPE_ERROR", "2^15+1", DONE, "raw")
def _(house):
    for form in FORMS:
        chunks = house.serve(**form).request(wire.READ, 1 << 60, 512)
        same([chunk.kind for chunk in chunks], [wire.T_ERROR])
        error, length = struct.unpack_from(">IH", chunks[0].data)
        same((error, len(chunks[0].data)), (wire.EINVAL, 6 + length))


@row(S, "NBD_REPLY_TYPE_ERROR_OFFSET", "2^15+2", NOT_OFFERED)
def _(house):
    # What cannot be read whole is not read at all: the error is the whole request's.
    errors = []
    handle = house.connect("short", strict=0)
    got = errno(handle.pread_structured, 512, 0, lambda data, offset, kind, error: errors.append(kind))
    same((got, errors), ("EIO", []))


@row(S, "replies out of order", "", DONE, "raw")
def _(house):
    for form in ({}, *FORMS):
        raw = house.serve(**form)
        lengths = {cookie: 512 * cookie for cookie in range(1, 33)}
        for cookie, length in lengths.items():
            raw.send_request(wire.READ, 0, length, cookie=cookie)
        left = set(lengths)
        while left:
            # A simple reply's length follows from its cookie, which comes first.
            raw_head = raw.take(4)
            magic = struct.unpack(">I", raw_head)[0]
            if magic == wire.SIMPLE_REPLY_MAGIC:
                error, cookie = struct.unpack(">IQ", raw.take(12))
                same(error, 0)
                same(raw.take(lengths[cookie]), b"\x5a" * lengths[cookie])
                left.remove(cookie)
                continue
            if magic == wire.STRUCTURED_REPLY_MAGIC:
                flags, kind, cookie, length = struct.unpack(">HHQI", raw.take(16))
            else:
                flags, kind, cookie, _, length = struct.unpack(">HHQQQ", raw.take(28))
            same(raw.take(length)[8:], b"\x5a" * lengths[cookie])
            if flags & wire.DONE:
                left.remove(cookie)
