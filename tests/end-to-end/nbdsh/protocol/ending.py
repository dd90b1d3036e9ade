# SPDX-License-Identifier: Apache-2.0
"""What clients are told by a server that ends. The last rows of the table: afterwards it is gone."""

import os
import signal

from . import wire
from .rows import DONE, errno, row, same

S = "the server's end"
READS = 32


@row(S, "requests before the end", "", DONE, "raw")
def _(house):
    house.clients = {name: house.haggle() if name == "option" else house.connect(strict=0) for name in ("option", "read")}
    house.haggling, waiting = house.raw(), house.raw()
    same(house.haggling.verdict(wire.LIST), wire.ACK)
    same(waiting.verdict(wire.LIST), wire.ACK)
    transmitting = house.serve(extended=True)
    for cookie in range(READS):
        transmitting.send_request(wire.READ, 0, 65536, cookie=cookie)
    same(transmitting.chunk().error, 0)
    os.kill(house.pid, signal.SIGTERM)
    # It takes a moment to hear of it; until then it serves, and afterwards it says that it ends.
    told = 0
    answered = 1
    while not told:
        transmitting.send_request(wire.READ, 0, 512, cookie=READS)
        chunk = transmitting.chunk()
        while chunk.cookie != READS:
            same(chunk.error, 0)
            answered += 1
            chunk = transmitting.chunk()
        told = chunk.error
    # The refusal may overtake reads that were accepted before: they are answered all the same.
    while answered < READS:
        same(transmitting.chunk().error, 0)
        answered += 1
    house.told_requests = told
    house.told_option = house.haggling.verdict(wire.INFO, wire.go_data("disk"))
    house.told_libnbd = [errno(house.clients["option"].opt_info), errno(house.clients["read"].pread, 512, 0)]
    house.told_abort = house.haggling.verdict(wire.ABORT)
    # Who stays is sent away.
    assert waiting.ended() and transmitting.ended() and house.haggling.ended()


@row(S, "NBD_ESHUTDOWN", 108, DONE)
def _(house):
    same((house.told_requests, house.told_libnbd[1]), (wire.ESHUTDOWN, "ESHUTDOWN"))


@row(S, "NBD_REP_ERR_SHUTDOWN", "2^31+7", DONE)
def _(house):
    same((house.told_option, house.told_libnbd[0]), (wire.ERR_SHUTDOWN, "ESHUTDOWN"))


@row(S, "NBD_OPT_ABORT at the end", "", DONE, "raw")
def _(house):
    same(house.told_abort, wire.ACK)
