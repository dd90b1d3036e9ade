# SPDX-License-Identifier: Apache-2.0
"""A flush on one connection covers the others, as libnbd sees it: URI, then the command that makes the storage lose
what is not durable and tells how many bytes that were."""

import json
import subprocess
import sys

import nbd

SECTOR = 512
COUNT = 32


def connect():
    handle = nbd.NBD()
    handle.connect_uri(sys.argv[1])
    assert handle.can_multi_conn() and handle.can_flush() and handle.can_fua()
    return handle


def lose():
    said = subprocess.run(sys.argv[2:], check=True, capture_output=True, text=True).stdout
    return json.loads(said)["lost"]


def sector(number, byte):
    return bytes([byte]) * SECTOR, number * SECTOR


def found(handle):
    data = handle.pread(COUNT * SECTOR, 0)
    return [data[at] for at in range(0, len(data), SECTOR)]


writers = [connect() for _ in range(4)]
flusher = connect()

# Writes on every connection, all in flight at once, acknowledged; a flush on one that wrote nothing; more writes.
sent = []
for number in range(COUNT):
    data, offset = sector(number, 1)
    writer = writers[number % 4]
    sent.append((writer, writer.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), offset)))
for writer, cookie in sent:
    while not writer.aio_command_completed(cookie):
        writer.poll(-1)
flusher.flush()
for number in range(0, COUNT, 2):
    writers[number % 4].pwrite(*sector(number, 2))
for number in range(0, COUNT, 8):
    writers[number % 3].pwrite(*sector(number, 3), nbd.CMD_FLAG_FUA)

lost = lose()
expected = [3 if number % 8 == 0 else 1 for number in range(COUNT)]
assert lost == SECTOR * sum(1 for number in range(0, COUNT, 2) if number % 8), lost
for handle in [*writers, flusher, connect()]:
    assert found(handle) == expected, found(handle)

# The storage says so until the volume is opened anew: a flush that would promise the lost writes must not succeed.
for handle in (writers[0], flusher):
    try:
        handle.flush()
    except nbd.Error as error:
        assert error.errno == "EIO", error
    else:
        raise AssertionError("a flush succeeded after unflushed writes were lost")
