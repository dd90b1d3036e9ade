# SPDX-License-Identifier: Apache-2.0
"""What a script can do with an export, over the way that the URI names: the calls of libnbd, in and out of order."""

import random
import sys

import nbd

MIB = 1 << 20
SEED = random.randrange(1 << 32)
print(f"seed {SEED}")
RANDOM = random.Random(SEED)

handle = nbd.NBD()
handle.add_meta_context("base:allocation")
handle.add_meta_context("novastor:size")
handle.set_uri_allow_local_file(True)
handle.connect_uri(sys.argv[1])
size = handle.get_size()
assert handle.get_protocol() == "newstyle-fixed" and handle.get_extended_headers_negotiated()
assert handle.get_tls_negotiated() == sys.argv[1].startswith("nbds")

# Random changes, each in flight with others that it does not touch, against a copy in memory.
expected = bytearray(handle.pread(size, 0))
SHARE = size // 16
for _ in range(30):
    cookies = []
    for share in range(16):
        offset = share * SHARE + RANDOM.randrange(SHARE // 2)
        length = RANDOM.randrange(1, SHARE // 2)
        flags = RANDOM.choice((0, nbd.CMD_FLAG_FUA))
        kind = RANDOM.randrange(4)
        if kind == 0:
            data = bytearray(RANDOM.randbytes(length))
            expected[offset : offset + length] = data
            cookies.append(handle.aio_pwrite(nbd.Buffer.from_bytearray(data), offset, flags=flags))
        elif kind == 1:
            expected[offset : offset + length] = bytes(length)
            cookies.append(handle.aio_zero(length, offset, flags=flags | RANDOM.choice((0, nbd.CMD_FLAG_NO_HOLE))))
        elif kind == 2:
            # What is trimmed reads as it likes: here it is written again at once.
            handle.trim(length, offset, flags)
            handle.pwrite(expected[offset : offset + length], offset)
        else:
            buffer = nbd.Buffer(length)
            cookie = handle.aio_pread(buffer, offset)
            while not handle.aio_command_completed(cookie):
                handle.poll(-1)
            assert buffer.to_bytearray() == expected[offset : offset + length], (offset, length)
    for cookie in cookies:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
handle.flush()
assert handle.pread(size, 0) == expected

# Structured: every byte once, holes as holes.
found = bytearray(size)
seen = []


def chunk(data, offset, kind, error):
    found[offset : offset + len(data)] = data
    seen.append((offset, len(data)))


handle.zero(MIB, 0)
expected[:MIB] = bytes(MIB)
assert handle.pread_structured(size, 0, chunk) == expected == found
at = 0
for offset, length in sorted(seen):
    assert offset == at, seen
    at += length
assert at == size

# Status: without gaps, and what it calls zero reads so.
at = 0
while at < size:
    extents = {}
    handle.block_status_64(size - at, at, lambda name, offset, found, error: extents.__setitem__(name, list(found)))
    assert extents["novastor:size"][0][1] == size, extents
    for length, flags in extents["base:allocation"]:
        length = min(length, size - at)
        if flags & nbd.STATE_ZERO:
            assert not any(handle.pread(length, at)), (at, length)
        at += length

# A second handle sees the same.
other = nbd.NBD()
other.set_uri_allow_local_file(True)
other.connect_uri(sys.argv[1])
assert other.pread(size, 0) == expected
handle.cache(size, 0)
handle.shutdown()
other.shutdown()
