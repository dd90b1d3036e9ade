# SPDX-License-Identifier: Apache-2.0
"""The first words of both, and the flags of the transmission."""

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, REFUSED, closes, errno, row, same

S = "handshake"


@row(S, "newstyle negotiation", "IHAVEOPT", DONE, "raw")
def _(house):
    with house.raw() as raw:
        same((raw.magic, raw.second_magic), (wire.NBDMAGIC, wire.IHAVEOPT))


@row(S, "oldstyle negotiation", "cliserv_magic", NOT_OFFERED, "raw")
def _(house):
    with house.raw() as raw:
        assert raw.second_magic != wire.CLISERV_MAGIC


@row(S, "NBD_FLAG_FIXED_NEWSTYLE", "bit 0", DONE, "raw")
def _(house):
    with house.raw() as raw:
        assert raw.handshake_flags & wire.FIXED_NEWSTYLE


@row(S, "NBD_FLAG_NO_ZEROES", "bit 1", DONE, "raw")
def _(house):
    with house.raw() as raw:
        assert raw.handshake_flags & wire.NO_ZEROES


@row(S, "other handshake flags", "bits 2-15", NOT_OFFERED, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.handshake_flags & ~3, 0)


@row(S, "NBD_FLAG_C_FIXED_NEWSTYLE", "bit 0", DONE)
def _(house):
    # With it libnbd negotiates; without it only NBD_OPT_EXPORT_NAME is left, and that is served as well.
    for flags, protocol in ((3, "newstyle-fixed"), (2, "newstyle"), (0, "newstyle")):
        handle = house.handle()
        handle.set_handshake_flags(flags)
        handle.connect_uri(house.uri("disk"))
        same(handle.get_protocol(), protocol)
        same(handle.get_size(), house.size)


@row(S, "NBD_FLAG_C_NO_ZEROES", "bit 1", DONE, "raw")
def _(house):
    for flags, zeroes in ((3, 0), (1, 124), (0, 124)):
        with house.raw(flags) as raw:
            raw.send_option(wire.EXPORT_NAME, b"disk")
            raw.take(10)
            same(raw.take(zeroes), bytes(zeroes))
            # The next byte is a reply's.
            assert raw.alive()


@row(S, "other client flags", "bits 2-31", REFUSED, "raw")
def _(house):
    for bit in (2, 15, 31):
        with house.raw(3 | 1 << bit) as raw:
            closes(raw, lambda: None)


@row(S, "a wrong magic number of an option", "", REFUSED, "raw")
def _(house):
    with house.raw() as raw:
        closes(raw, lambda: raw.send_option(wire.LIST, magic=wire.IHAVEOPT ^ 1))


S = "transmission flags"


def flag(name, bit, offered, libnbd):
    """A flag: on which exports it stands, the same for libnbd and on the wire."""
    verdict = DONE if any(offered.values()) else NOT_OFFERED

    @row(S, name, f"bit {bit}", verdict, "libnbd" if libnbd else "raw")
    def _(house):
        for export, expected in offered.items():
            with house.raw() as raw:
                raw.extend()
                same(raw.contexts(export, ["base:allocation"])[0], wire.ACK)
                same(raw.go(export, option=wire.INFO), wire.ACK)
                assert bool(raw.flags & 1 << bit) == expected, f"{name} on {export}: {raw.flags:#b}"
            if libnbd:
                assert bool(libnbd(house.connect(export, contexts=["base:allocation"]))) == expected, export


flag("NBD_FLAG_HAS_FLAGS", 0, {"disk": True, "readonly": True, "faulty": True}, None)
flag("NBD_FLAG_READ_ONLY", 1, {"disk": False, "readonly": True, "faulty": False}, nbd.NBD.is_read_only)
flag("NBD_FLAG_SEND_FLUSH", 2, {"disk": True, "readonly": True, "faulty": True}, nbd.NBD.can_flush)
flag("NBD_FLAG_SEND_FUA", 3, {"disk": True, "readonly": False, "faulty": True}, nbd.NBD.can_fua)
flag("NBD_FLAG_ROTATIONAL", 4, {"disk": False, "readonly": False, "faulty": False}, nbd.NBD.is_rotational)
flag("NBD_FLAG_SEND_TRIM", 5, {"disk": True, "readonly": False, "faulty": False}, nbd.NBD.can_trim)
flag("NBD_FLAG_SEND_WRITE_ZEROES", 6, {"disk": True, "readonly": False, "faulty": False}, nbd.NBD.can_zero)
flag("NBD_FLAG_SEND_DF", 7, {"disk": True, "readonly": True, "faulty": True}, nbd.NBD.can_df)
flag("NBD_FLAG_CAN_MULTI_CONN", 8, {"disk": True, "readonly": True, "faulty": True}, nbd.NBD.can_multi_conn)
flag("NBD_FLAG_SEND_RESIZE", 9, {"disk": False, "readonly": False, "faulty": False}, None)
flag("NBD_FLAG_SEND_CACHE", 10, {"disk": True, "readonly": True, "faulty": False}, nbd.NBD.can_cache)
flag("NBD_FLAG_SEND_FAST_ZERO", 11, {"disk": True, "readonly": False, "faulty": False}, nbd.NBD.can_fast_zero)
flag(
    "NBD_FLAG_BLOCK_STATUS_PAYLOAD",
    12,
    {"disk": True, "readonly": True, "faulty": True},
    nbd.NBD.can_block_status_payload,
)


@row(S, "flags of what was not negotiated", "bits 7, 12", DONE)
def _(house):
    # DF has no meaning in simple replies, and a payload none in compact requests.
    assert not house.connect(simple=True).can_df()
    assert not house.connect(compact=True, contexts=["base:allocation"]).can_block_status_payload()
    assert house.connect(compact=True).can_df()


@row(S, "other transmission flags", "bits 13-15", NOT_OFFERED, "raw")
def _(house):
    for export in ("disk", "readonly", "faulty"):
        with house.raw() as raw:
            same(raw.go(export, option=wire.INFO), wire.ACK)
            same(raw.flags >> 13, 0)


@row(S, "NBD_FLAG_READ_ONLY refuses changes", "", REFUSED)
def _(house):
    handle = house.connect("readonly", strict=0)
    same(errno(handle.pwrite, b"x" * 512, 0), "EPERM")
    same(errno(handle.zero, 512, 0), "EPERM")
    same(errno(handle.trim, 512, 0), "EPERM")
    same(len(handle.pread(512, 0)), 512)
