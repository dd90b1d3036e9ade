# SPDX-License-Identifier: Apache-2.0
"""A server that libnbd starts itself: how, then its command line. `command`: on its standard input and output;
`activation`: with a socket that it is given."""

import sys

import nbd

MODE, COMMAND = sys.argv[1], sys.argv[2:]


def connect():
    handle = nbd.NBD()
    handle.set_export_name("disk")
    handle.add_meta_context("base:allocation")
    if MODE == "activation":
        handle.connect_systemd_socket_activation(COMMAND)
    else:
        handle.connect_command(COMMAND)
    return handle


handle = connect()
assert handle.get_size() == 4 << 20 and handle.get_extended_headers_negotiated()
mark = MODE.encode()
handle.pwrite(mark, 0)
handle.flush()
# Much in flight in both directions at once: a pipe that is full must not stop the other.
data = bytes(range(256)) * 4096
for _ in range(4):
    cookies = [handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(data)), 1 << 20) for _ in range(4)]
    buffers = [nbd.Buffer(1 << 20) for _ in range(4)]
    cookies += [handle.aio_pread(buffer, 2 << 20) for buffer in buffers]
    for cookie in cookies:
        while not handle.aio_command_completed(cookie):
            handle.poll(-1)
assert handle.pread(1 << 20, 1 << 20) == data
handle.zero(1 << 20, 1 << 20)
handle.shutdown()
del handle

# The next one finds what the first has written.
handle = connect()
assert handle.pread(len(mark), 0) == mark
handle.shutdown()
