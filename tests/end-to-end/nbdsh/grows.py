# SPDX-License-Identifier: Apache-2.0
"""An export grows under its clients: URI, size before, size after, then the command that makes it grow."""

import subprocess
import sys

import nbd

uri, before, after = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
MIB = 1 << 20


def connect():
    handle = nbd.NBD()
    handle.add_meta_context("novastor:size")
    handle.add_meta_context("base:allocation")
    # libnbd itself would not look beyond the size that it was told first.
    handle.set_strict_mode(nbd.STRICT_MASK & ~nbd.STRICT_BOUNDS)
    handle.connect_uri(uri)
    return handle


def told(handle, offset=0):
    found = {}
    handle.block_status_64(MIB, offset, lambda name, at, extents, error: found.__setitem__(name, list(extents)))
    return found["novastor:size"][0][1]


def fails(call, *arguments):
    try:
        call(*arguments)
    except nbd.Error as error:
        return error.errno
    return None


old = connect()
haggling = nbd.NBD()
haggling.set_opt_mode(True)
haggling.connect_uri(uri)
haggling.opt_info()
assert haggling.get_size() == before

assert (old.get_size(), told(old)) == (before, before)
old.pwrite(b"\x11" * MIB, before - MIB)
assert fails(old.pread, 512, before) == "EINVAL"
assert fails(old.pwrite, b"x" * 512, before) == "ENOSPC"

subprocess.run(sys.argv[4:], check=True, capture_output=True, timeout=60)

# The old connection: what it was told at first is history, what it asks now is not.
# libnbd takes no status of an area beyond the size that it knows; any other tells the size as well.
assert told(old) == told(old, before - MIB) == after, told(old)
assert old.pread(2 * MIB, before - MIB) == b"\x11" * MIB + bytes(MIB)
old.pwrite(b"\x22" * MIB, after - MIB)
assert fails(old.pwrite, b"x" * 512, after - 511) == "ENOSPC"
old.flush()

# One that had asked and not chosen yet, and a new one.
haggling.opt_go()
new = connect()
for handle in (haggling, new):
    assert handle.get_size() == after, handle.get_size()
    assert handle.pread(MIB, after - MIB) == b"\x22" * MIB
assert told(new) == after
