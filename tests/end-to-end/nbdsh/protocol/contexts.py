# SPDX-License-Identifier: Apache-2.0
"""The metadata contexts."""

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, REFUSED, row, same

S = "metadata contexts"
MIB = 1 << 20


def listed(house, queries, export="disk"):
    found = []
    house.haggle(export).opt_list_meta_context_queries(queries, found.append)
    return sorted(found)


def status(handle, length, offset=0):
    found = {}
    handle.block_status_64(length, offset, lambda name, at, extents, error: found.__setitem__(name, list(extents)))
    return found


@row(S, "base:allocation", "", DONE)
def _(house):
    same(listed(house, ["base:allocation"]), ["base:allocation"])
    # A volume without a map has it, too: all of it is data.
    same(status(house.connect("faulty", contexts=["base:allocation"]), MIB)["base:allocation"][0][1], 0)


@row(S, "NBD_STATE_HOLE", "bit 0", DONE)
def _(house):
    extents = status(house.connect(contexts=["base:allocation"]), 4 * MIB)["base:allocation"]
    same(extents[0], (MIB, 0))
    assert extents[1][1] & nbd.STATE_HOLE, extents


@row(S, "NBD_STATE_ZERO", "bit 1", DONE)
def _(house):
    extents = status(house.connect(contexts=["base:allocation"]), 4 * MIB)["base:allocation"]
    assert extents[1][1] & nbd.STATE_ZERO, extents


@row(S, "base:", "", DONE)
def _(house):
    same(listed(house, ["base:"]), ["base:allocation"])


@row(S, "novastor:size", "", DONE)
def _(house):
    same(listed(house, ["novastor:"]), ["novastor:size"])
    found = status(house.connect(contexts=["novastor:size"]), 512)["novastor:size"]
    same(found[0][1], house.size)


@row(S, "a list without queries", "", DONE)
def _(house):
    same(listed(house, []), ["base:allocation", "novastor:size"])


@row(S, "a choice without queries", "", DONE)
def _(house):
    handle = house.connect(contexts=["base:allocation"])
    assert handle.can_meta_context("base:allocation")
    with house.raw() as raw:
        raw.structured()
        same(raw.contexts("disk", ["base:allocation"])[0], wire.ACK)
        same(raw.contexts("disk", []), (wire.ACK, {}))
        same(raw.go("disk"), wire.ACK)
        same(raw.error(wire.BLOCK_STATUS, 0, 512), wire.EINVAL)


@row(S, "a choice for another export", "", REFUSED, "raw")
def _(house):
    with house.raw() as raw:
        raw.structured()
        same(raw.contexts("readonly", ["base:allocation"])[0], wire.ACK)
        same(raw.go("disk"), wire.ACK)
        same(raw.error(wire.BLOCK_STATUS, 0, 512), wire.EINVAL)


@row(S, "contexts that nobody knows", "", NOT_OFFERED)
def _(house):
    same(listed(house, ["base:other", "qemu:dirty-bitmap:x", "novastor:other", "x-none:"]), [])
    with house.raw() as raw:
        raw.structured()
        same(raw.contexts("disk", ["base:other", "base:allocation"])[1].keys(), {"base:allocation"})


@row(S, "a query without a namespace", "", REFUSED, "raw")
def _(house):
    with house.raw() as raw:
        raw.structured()
        for option in (wire.LIST_META_CONTEXT, wire.SET_META_CONTEXT):
            verdict, found = raw.contexts("disk", ["allocation"], option)
            assert verdict in (wire.ACK, wire.ERR_INVALID) and not found, (verdict, found)
        same(raw.go("disk"), wire.ACK)
