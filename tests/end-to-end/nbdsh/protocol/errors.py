# SPDX-License-Identifier: Apache-2.0
"""The errors that requests get."""

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, errno, row, same

S = "errors"


@row(S, "NBD_EPERM", 1, DONE)
def _(house):
    same(errno(house.connect("readonly", strict=0).pwrite, b"x" * 512, 0), "EPERM")
    same(house.serve("readonly").error(wire.WRITE, 0, 512, 0, bytes(512)), wire.EPERM)


@row(S, "NBD_EIO", 5, DONE)
def _(house):
    handle = house.connect("faulty", strict=0)
    handle.pwrite(b"\x99" * 512, 12288)
    same(house.lose(), 512)
    same(errno(handle.flush), "EIO")
    house.reopen("faulty")
    house.connect("faulty").flush()


@row(S, "NBD_ENOMEM", 12, NOT_OFFERED, "raw")
def _(house):
    # Room is set aside before a request is taken: the largest reads, all at once, wait and are done.
    raw = house.serve("huge")
    largest = house.connect("huge").get_block_size(nbd.SIZE_MAXIMUM)
    for cookie in range(1, 9):
        raw.send_request(wire.READ, 0, largest, cookie=cookie)
    for _ in range(8):
        same(raw.chunk(largest).error, 0)


@row(S, "NBD_EINVAL", 22, DONE)
def _(house):
    handle = house.connect(strict=0)
    same(errno(handle.pread, 512, house.size), "EINVAL")
    same(errno(handle.pread, 512, 0, 1 << 12), "EINVAL")


@row(S, "NBD_ENOSPC", 28, DONE)
def _(house):
    same(errno(house.connect(strict=0).pwrite, b"x" * 512, house.size), "ENOSPC")


@row(S, "NBD_EOVERFLOW", 75, NOT_OFFERED)
def _(house):
    # A read without fragments is done whatever its length; it is never too large to be sent whole.
    handle = house.connect(strict=0)
    largest = handle.get_block_size(nbd.SIZE_MAXIMUM)
    chunks = []
    handle.pread_structured(largest, 0, lambda data, *_: chunks.append(len(data)), nbd.CMD_FLAG_DF)
    same(chunks, [largest])


@row(S, "NBD_ENOTSUP", 95, DONE)
def _(house):
    same(errno(house.connect("unsupported").pwrite, b"x" * 512, 0), "ENOTSUP")


@row(S, "NBD_ESHUTDOWN", 108, DONE)
def _(house):
    # A writer that was replaced may never write again.
    same(errno(house.connect("fenced").pwrite, b"x" * 512, 0), "ESHUTDOWN")


@row(S, "errors that the document does not know", "", NOT_OFFERED, "raw")
def _(house):
    known = {wire.EPERM, wire.EIO, wire.EINVAL, wire.ENOSPC, wire.ENOTSUP, wire.ESHUTDOWN}
    for export, command in (("short", wire.READ), ("fenced", wire.WRITE), ("unsupported", wire.WRITE)):
        found = house.serve(export).error(command, 0, 512, 0, bytes(512) if command else b"")
        assert found in known, (export, found)
