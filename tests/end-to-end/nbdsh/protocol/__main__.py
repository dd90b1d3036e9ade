# SPDX-License-Identifier: Apache-2.0
"""Checks every row of the table against a host, and prints one line of JSON for each.

    python3 protocol '{"socket": …, "cli": […], …}' [PATTERN]
"""

import json
import pathlib
import sys
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from protocol import handshake, options, commands, replies, contexts, errors, ending  # noqa: E402,F401
from protocol.rows import ROWS, House  # noqa: E402


def main():
    house = House(json.loads(sys.argv[1]))
    pattern = sys.argv[2] if len(sys.argv) > 2 else ""
    for row in ROWS:
        if pattern not in row.name:
            continue
        why = None
        try:
            row.check(house)
        except Exception as error:  # Whatever it is, it is the row's failure.
            place = traceback.extract_tb(error.__traceback__)[-1]
            named = f"{pathlib.Path(place.filename).name}:{place.lineno}: {place.line}"
            why = f"{named}: {type(error).__name__} {error}"
        line = {"section": row.section, "name": row.name, "number": row.number, "verdict": row.verdict, "by": row.by}
        print(json.dumps(line | {"why": why}), flush=True)


main()
