# SPDX-License-Identifier: Apache-2.0
"""What clients are told by a server that ends. The last rows of the table: afterwards it is gone."""

import os
import signal
import time

from . import wire
from .rows import DONE, errno, row, same

S = "the server's end"
READS = 32
LENGTH = 65536


@row(S, "requests before the end", "", DONE, "raw")
def _(house):
    house.clients = {name: house.haggle() if name == "option" else house.connect(strict=0) for name in ("option", "read")}
    house.haggling, waiting = house.raw(), house.raw()
    same(house.haggling.verdict(wire.LIST), wire.ACK)
    same(waiting.verdict(wire.LIST), wire.ACK)
    under_way = house.serve("slow", extended=True)
    for cookie in range(READS):
        under_way.send_request(wire.READ, 0, LENGTH, cookie=cookie)
    # What is only sent, and lies where the server has not looked yet, it may refuse. This one is refused at once, but in its
    # turn: then the server has begun those before it, and the storage takes its time for them.
    under_way.send_request(wire.READ, house.size, 512, cookie=READS)
    chunk = under_way.chunk()
    same((chunk.cookie, chunk.error), (READS, wire.EINVAL))
    # The server tells its connections one after another, and this one last.
    transmitting = house.serve(extended=True)
    os.kill(house.pid, signal.SIGTERM)
    # It takes a moment to hear of it; until then it serves, and afterwards it says that it ends.
    while not (told := transmitting.error(wire.READ, 0, 512)):
        time.sleep(0.01)
    house.told_requests = told
    house.told_option = house.haggling.verdict(wire.INFO, wire.go_data("disk"))
    house.told_libnbd = [errno(house.clients["option"].opt_info), errno(house.clients["read"].pread, 512, 0)]
    house.told_abort = house.haggling.verdict(wire.ABORT)
    # What was begun is done all the same, in any order.
    answered = set()
    while len(answered) < READS:
        chunk = under_way.chunk()
        # Data comes behind its offset.
        same((chunk.error, len(chunk.data)), (0, 8 + LENGTH))
        answered.add(chunk.cookie)
    # Who stays is sent away.
    assert waiting.ended() and transmitting.ended() and house.haggling.ended() and under_way.ended()


@row(S, "NBD_ESHUTDOWN", 108, DONE)
def _(house):
    same((house.told_requests, house.told_libnbd[1]), (wire.ESHUTDOWN, "ESHUTDOWN"))


@row(S, "NBD_REP_ERR_SHUTDOWN", "2^31+7", DONE)
def _(house):
    same((house.told_option, house.told_libnbd[0]), (wire.ERR_SHUTDOWN, "ESHUTDOWN"))


@row(S, "NBD_OPT_ABORT at the end", "", DONE, "raw")
def _(house):
    same(house.told_abort, wire.ACK)
