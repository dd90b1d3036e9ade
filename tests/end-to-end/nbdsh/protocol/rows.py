# SPDX-License-Identifier: Apache-2.0
"""The table's rows: what the protocol's document names, what becomes of it here, and the check that it does."""

import dataclasses
import json
import subprocess
import typing

import nbd

from . import wire

DONE, REFUSED, NOT_OFFERED = "done", "refused", "not offered"


@dataclasses.dataclass
class Row:
    section: str
    name: str
    number: str
    verdict: str
    by: str
    check: typing.Callable


ROWS = []


def row(section, name, number, verdict, by="libnbd"):
    """Adds a check to the table. It gets the House, and raises unless the server behaves as `verdict` says."""

    def add(check):
        ROWS.append(Row(section, name, str(number), verdict, by, check))
        return check

    return add


class House:
    """The host that is asked, and its exports."""

    def __init__(self, told):
        self.told = told

    def __getattr__(self, name):
        return self.told[name]

    def uri(self, export):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def run(self, *words):
        """Runs `novastor` with these words."""
        return subprocess.run([*self.cli, *words], check=True, capture_output=True, text=True, timeout=60).stdout

    def lose(self):
        """Makes the storage of `faulty` forget what is not flushed."""
        return json.loads(self.run("backend", "run", "faulty", "restart", '{"volume":"faulty"}'))["lost"]

    def reopen(self, export):
        """Ends an export and opens it anew."""
        self.run("export", "remove", export)
        self.run("export", "add", export)

    # libnbd

    def handle(self, simple=False, compact=False, contexts=(), strict=nbd.STRICT_MASK):
        """A handle that was not connected yet."""
        handle = nbd.NBD()
        handle.set_strict_mode(strict)
        if simple:
            handle.set_request_structured_replies(False)
        if simple or compact:
            handle.set_request_extended_headers(False)
        for context in contexts:
            handle.add_meta_context(context)
        return handle

    def connect(self, export="disk", **more):
        """libnbd on an export."""
        handle = self.handle(**more)
        handle.connect_uri(self.uri(export))
        return handle

    def haggle(self, export="disk", **more):
        """libnbd in the negotiation."""
        handle = self.handle(**more)
        handle.set_opt_mode(True)
        handle.connect_unix(self.socket)
        handle.set_export_name(export)
        return handle

    # The raw client

    def raw(self, flags=wire.FIXED_NEWSTYLE | wire.NO_ZEROES):
        return wire.Raw(self.socket, flags)

    def serve(self, export="disk", structured=False, extended=False, contexts=()):
        """The raw client on an export."""
        raw = self.raw()
        if extended:
            raw.extend()
        elif structured:
            raw.structured()
        if contexts:
            assert raw.contexts(export, contexts)[0] == wire.ACK
        assert raw.go(export) == wire.ACK
        return raw


def errno(call, *arguments, **more):
    """The name of the error that a call of libnbd fails with."""
    try:
        call(*arguments, **more)
    except nbd.Error as error:
        return error.errno or "an error without a number"
    return None


def same(found, expected):
    assert found == expected, f"found {found!r}, expected {expected!r}"


def closes(raw, send):
    """The server ends the connection without an answer."""
    try:
        send()
    except wire.Closed:
        return
    assert raw.ended(), "the server did not close"
