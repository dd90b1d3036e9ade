# SPDX-License-Identifier: Apache-2.0
"""The options, the types of their replies and the facts about an export."""

import struct

import nbd

from . import wire
from .rows import DONE, NOT_OFFERED, REFUSED, closes, errno, row, same

S = "options"


@row(S, "NBD_OPT_EXPORT_NAME", 1, DONE)
def _(house):
    handle = house.handle()
    handle.set_handshake_flags(0)
    handle.connect_uri(house.uri("disk"))
    same(len(handle.pread(512, 0)), 512)
    with house.raw() as raw:
        closes(raw, lambda: raw.send_option(wire.EXPORT_NAME, b"no such export"))
    # It says nothing of what extended headers need said.
    with house.raw() as raw:
        raw.extend()
        closes(raw, lambda: raw.send_option(wire.EXPORT_NAME, b"disk"))


@row(S, "NBD_OPT_ABORT", 2, DONE)
def _(house):
    handle = house.haggle()
    handle.opt_abort()
    assert handle.aio_is_closed()
    with house.raw() as raw:
        same(raw.verdict(wire.ABORT), wire.ACK)
        assert raw.ended()


@row(S, "NBD_OPT_LIST", 3, DONE)
def _(house):
    names = []
    house.haggle().opt_list(lambda name, text: names.append(name))
    assert {"disk", "readonly", "faulty"} <= set(names), names
    with house.raw() as raw:
        same(raw.verdict(wire.LIST, b"data"), wire.ERR_INVALID)
        same(raw.verdict(wire.LIST), wire.ACK)


@row(S, "NBD_OPT_PEEK_EXPORT", 4, REFUSED, "raw")
def _(house):
    # Withdrawn from the document.
    with house.raw() as raw:
        same(raw.verdict(wire.PEEK_EXPORT, wire.go_data("disk")), wire.ERR_UNSUP)


@row(S, "NBD_OPT_STARTTLS", 5, DONE)
def _(house):
    handle = nbd.NBD()
    handle.set_tls(nbd.TLS_REQUIRE)
    handle.set_tls_certificates(house.certificates)
    handle.set_opt_mode(True)
    handle.connect_tcp(house.tls[0], str(house.tls[1]))
    assert handle.get_tls_negotiated()
    handle.set_export_name("disk")
    handle.opt_go()
    same(len(handle.pread(512, 0)), 512)
    with wire.Raw(tuple(house.tls)) as raw:
        same(raw.verdict(wire.STARTTLS, b"data"), wire.ERR_INVALID)
    # On this machine it may be; where none was configured it cannot.
    handle = nbd.NBD()
    handle.set_tls(nbd.TLS_REQUIRE)
    handle.set_tls_certificates(house.certificates)
    handle.set_tls_hostname("localhost")
    handle.set_export_name("disk")
    handle.connect_unix(house.socket)
    assert handle.get_tls_negotiated()
    with wire.Raw(house.plain) as raw:
        same(raw.verdict(wire.STARTTLS), wire.ERR_POLICY)
        same(raw.verdict(wire.LIST), wire.ACK)


@row(S, "NBD_OPT_INFO", 6, DONE)
def _(house):
    handle = house.haggle()
    handle.opt_info()
    same(handle.get_size(), house.size)
    handle.set_export_name("no such export")
    assert errno(handle.opt_info) is not None
    handle.set_export_name("readonly")
    handle.opt_info()
    assert handle.is_read_only()
    handle.set_export_name("disk")
    handle.opt_go()
    assert not handle.is_read_only()


@row(S, "NBD_OPT_GO", 7, DONE)
def _(house):
    handle = house.haggle("no such export")
    assert errno(handle.opt_go) is not None
    handle.set_export_name("disk")
    handle.opt_go()
    same(len(handle.pread(512, 0)), 512)
    for data in (b"", b"\0\0\0", wire.go_data("disk") + b"\0", wire.go_data("disk")[:-1], b"\xff" * 6):
        with house.raw() as raw:
            same(raw.verdict(wire.GO, data), wire.ERR_INVALID)
            same(raw.go("disk"), wire.ACK)


@row(S, "NBD_OPT_STRUCTURED_REPLY", 8, DONE)
def _(house):
    assert house.connect(compact=True).get_structured_replies_negotiated()
    assert not house.connect(simple=True).get_structured_replies_negotiated()
    with house.raw() as raw:
        same(raw.verdict(wire.STRUCTURED_REPLY, b"data"), wire.ERR_INVALID)
        same(raw.verdict(wire.STRUCTURED_REPLY), wire.ACK)
        assert raw.verdict(wire.STRUCTURED_REPLY) in (wire.ACK, wire.ERR_INVALID)
        same(raw.go("disk"), wire.ACK)
        same(raw.request(wire.READ, 0, 512)[0].magic, wire.STRUCTURED_REPLY_MAGIC)


@row(S, "NBD_OPT_LIST_META_CONTEXT", 9, DONE)
def _(house):
    names = []
    same(house.haggle().opt_list_meta_context_queries([], names.append), len(names))
    assert "base:allocation" in names and "novastor:size" in names, names
    with house.raw() as raw:
        same(raw.verdict(wire.LIST_META_CONTEXT, wire.context_data("disk", [])), wire.ERR_INVALID)


@row(S, "NBD_OPT_SET_META_CONTEXT", 10, DONE)
def _(house):
    handle = house.connect(contexts=["base:allocation", "novastor:size"])
    assert handle.can_meta_context("base:allocation") and handle.can_meta_context("novastor:size")
    with house.raw() as raw:
        same(raw.verdict(wire.SET_META_CONTEXT, wire.context_data("disk", ["base:allocation"])), wire.ERR_INVALID)
        raw.structured()
        data = wire.context_data("disk", ["base:allocation"])
        for broken in (b"", data[:-1], data + b"\0", data[:4] + b"\xff\xff\xff\xff"):
            same(raw.verdict(wire.SET_META_CONTEXT, broken), wire.ERR_INVALID)
        same(raw.verdict(wire.SET_META_CONTEXT, wire.context_data("no such export", [])), wire.ERR_UNKNOWN)


@row(S, "NBD_OPT_EXTENDED_HEADERS", 11, DONE)
def _(house):
    assert house.connect().get_extended_headers_negotiated()
    assert not house.connect(compact=True).get_extended_headers_negotiated()
    with house.raw() as raw:
        same(raw.verdict(wire.EXTENDED_HEADERS, b"data"), wire.ERR_INVALID)
        raw.extend()
        assert raw.verdict(wire.EXTENDED_HEADERS) in (wire.ACK, wire.ERR_INVALID)
        same(raw.go("disk"), wire.ACK)
        same(raw.request(wire.READ, 0, 512)[0].magic, wire.EXTENDED_REPLY_MAGIC)


@row(S, "options that the document does not know", "0, 12-", REFUSED, "raw")
def _(house):
    with house.raw() as raw:
        for option in (0, 12, 1 << 31, (1 << 32) - 1):
            same(raw.verdict(option, b"data"), wire.ERR_UNSUP)
        same(raw.go("disk"), wire.ACK)


S = "option replies"


@row(S, "NBD_REP_ACK", 1, DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.option(wire.LIST)[-1], (wire.ACK, b""))


@row(S, "NBD_REP_SERVER", 2, DONE)
def _(house):
    found = {}
    same(house.haggle().opt_list(found.__setitem__), len(found))
    assert "disk" in found, found


@row(S, "NBD_REP_INFO", 3, DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.go("disk", option=wire.INFO), wire.ACK)
        same(raw.size, house.size)


@row(S, "NBD_REP_META_CONTEXT", 4, DONE, "raw")
def _(house):
    with house.raw() as raw:
        raw.extend()
        verdict, found = raw.contexts("disk", ["base:allocation", "novastor:size"])
        same(verdict, wire.ACK)
        same(sorted(found), ["base:allocation", "novastor:size"])
        same(len(set(found.values())), 2)


@row(S, "NBD_REP_ERR_UNSUP", "2^31+1", DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.verdict(99), wire.ERR_UNSUP)


@row(S, "NBD_REP_ERR_POLICY", "2^31+2", DONE)
def _(house):
    with house.raw() as raw:
        for option in (wire.INFO, wire.GO):
            kind, text = raw.option(option, wire.go_data("denied"))[-1]
            same(kind, wire.ERR_POLICY)
            assert text.decode(), "no reason is given"
        same(raw.go("disk"), wire.ACK)
    handle = house.haggle("denied")
    assert errno(handle.opt_go) is not None
    names = []
    handle.opt_list(lambda name, text: names.append(name))
    assert "denied" not in names, "an export is listed to whom it is denied"


@row(S, "NBD_REP_ERR_INVALID", "2^31+3", DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.verdict(wire.INFO, b"short"), wire.ERR_INVALID)
        same(raw.verdict(wire.INFO, struct.pack(">I", 2) + b"\xff\xfe" + b"\0\0"), wire.ERR_INVALID)


@row(S, "NBD_REP_ERR_PLATFORM", "2^31+4", NOT_OFFERED, "raw")
def _(house):
    # Nothing here depends on the platform: what is known is done.
    with house.raw() as raw:
        for option in range(3, 12):
            if option != wire.STARTTLS:
                assert raw.verdict(option, b"x") != wire.ERR_PLATFORM


@row(S, "NBD_REP_ERR_TLS_REQD", "2^31+5", DONE, "raw")
def _(house):
    with wire.Raw(tuple(house.tls)) as raw:
        for option, data in (
            (wire.LIST, b""),
            (wire.INFO, wire.go_data("disk")),
            (wire.GO, wire.go_data("disk")),
            (wire.STRUCTURED_REPLY, b""),
            (wire.EXTENDED_HEADERS, b""),
        ):
            same(raw.verdict(option, data), wire.ERR_TLS_REQD)
    with wire.Raw(tuple(house.tls)) as raw:
        closes(raw, lambda: raw.send_option(wire.EXPORT_NAME, b"disk"))
    with wire.Raw(tuple(house.tls)) as raw:
        same(raw.verdict(wire.ABORT), wire.ACK)


@row(S, "NBD_REP_ERR_UNKNOWN", "2^31+6", DONE, "raw")
def _(house):
    with house.raw() as raw:
        for option in (wire.INFO, wire.GO):
            same(raw.verdict(option, wire.go_data("no such export")), wire.ERR_UNKNOWN)


@row(S, "NBD_REP_ERR_TOO_BIG", "2^31+9", DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.go("n" * 4096), wire.ERR_UNKNOWN)
        same(raw.go("n" * 4097), wire.ERR_TOO_BIG)
        same(raw.go("disk"), wire.ACK)
    with house.raw() as raw:
        raw.send_option(wire.LIST, length=(1 << 32) - 1)
        same(raw.option_reply()[:2], (wire.LIST, wire.ERR_TOO_BIG))
        assert raw.ended()


@row(S, "NBD_REP_ERR_BLOCK_SIZE_REQD", "2^31+8", DONE, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.go("blocks", wanted=()), wire.ERR_BLOCK_SIZE_REQD)
        same(raw.go("blocks"), wire.ACK)
        same(struct.unpack(">III", raw.info[wire.INFO_BLOCK_SIZE])[0], 4096)
        same(raw.error(wire.READ, 512, 4096), wire.EINVAL)
        same(raw.error(wire.READ, 4096, 4096), 0)


@row(S, "NBD_REP_ERR_EXT_HEADER_REQD", "2^31+10", DONE, "raw")
def _(house):
    # After extended headers there is nothing left to ask for with structured replies.
    with house.raw() as raw:
        raw.extend()
        same(raw.verdict(wire.STRUCTURED_REPLY), wire.ERR_EXT_HEADER_REQD)
    # A size does not fit into a status of 32 bits.
    with house.raw() as raw:
        raw.structured()
        same(raw.contexts("disk", ["novastor:size"]), (wire.ERR_EXT_HEADER_REQD, {}))
        same(list(raw.contexts("disk", ["novastor:size", "base:allocation"])[1]), ["base:allocation"])


S = "export information"


@row(S, "NBD_INFO_EXPORT", 0, DONE)
def _(house):
    same(house.connect().get_size(), house.size)
    with house.raw() as raw:
        same(raw.go("disk", wanted=()), wire.ACK)
        assert wire.INFO_EXPORT in raw.info


@row(S, "NBD_INFO_NAME", 1, DONE)
def _(house):
    handle = house.handle()
    handle.set_full_info(True)
    handle.connect_uri(house.uri(""))
    same(handle.get_canonical_export_name(), house.default)


@row(S, "NBD_INFO_DESCRIPTION", 2, DONE)
def _(house):
    handle = house.handle()
    handle.set_full_info(True)
    handle.connect_uri(house.uri("disk"))
    assert handle.get_export_description()


@row(S, "NBD_INFO_BLOCK_SIZE", 3, DONE)
def _(house):
    handle = house.connect()
    smallest, preferred, largest = (
        handle.get_block_size(kind) for kind in (nbd.SIZE_MINIMUM, nbd.SIZE_PREFERRED, nbd.SIZE_MAXIMUM)
    )
    assert 1 <= smallest <= preferred <= largest and preferred >= 512, (smallest, preferred, largest)
    assert smallest.bit_count() == preferred.bit_count() == 1, (smallest, preferred)
    same(len(handle.pread(largest, 0)), largest)
    same(errno(house.connect(strict=0).pread, largest + smallest, 0), "EINVAL")


@row(S, "facts that the document does not know", "4-", NOT_OFFERED, "raw")
def _(house):
    with house.raw() as raw:
        same(raw.go("disk", wanted=(4, 99, 65535)), wire.ACK)
        assert set(raw.info) <= {0, 1, 2, 3}, raw.info
