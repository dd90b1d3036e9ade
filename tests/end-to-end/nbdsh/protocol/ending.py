# SPDX-License-Identifier: Apache-2.0
"""What clients see of a server that ends. The last rows of the table: afterwards it is gone."""

import os
import signal

from . import wire
from .rows import DONE, NOT_OFFERED, row, same

S = "the server's end"


@row(S, "requests before the end", "", DONE, "raw")
def _(house):
    transmitting = house.serve(extended=True)
    for cookie in range(64):
        transmitting.send_request(wire.READ, 0, 65536, cookie=cookie)
    # The last is taken once its reply is here; what was taken is answered though the server ends meanwhile.
    house.haggling = house.raw()
    same(house.haggling.verdict(wire.LIST), wire.ACK)
    answered = {transmitting.chunk().cookie}
    os.kill(house.pid, signal.SIGTERM)
    try:
        while True:
            chunk = transmitting.chunk()
            same(chunk.error, 0)
            answered.add(chunk.cookie)
    except wire.Closed:
        pass
    same(sorted(answered), list(range(len(answered))))


@row(S, "NBD_REP_ERR_SHUTDOWN", "2^31+7", NOT_OFFERED, "raw")
def _(house):
    # The connection is ended instead: an option that comes too late finds nobody.
    assert house.haggling.ended()
