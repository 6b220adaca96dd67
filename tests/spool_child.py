"""A process that takes mail into a spool and tells on stdout, one line each: `ack QID`, `gone QID`, `refused KIND`, `closed`.

Arguments: path, number of mails, settings as JSON: sizes (cycled), group (mails in a turn), wal_bytes, keep (every n-th
acknowledged mail is kept, the others are settled as delivered), spill (threshold), stay (do not close, wait to be killed).
"""

from __future__ import annotations

import json
import os
import signal
import sys

from spool_rig import Rig, make_body

from smtpd.errors import SpoolError, StartupError
from smtpd.spool.item import SpoolItem
from smtpd.spool.schema import Pragmas


def tell(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def main() -> None:
    path, count, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sizes = options.get("sizes", [500, 5000])
    keep = options.get("keep", 2)
    group = options.get("group", 5)
    try:
        rig = Rig(path, Pragmas(wal_bytes=options.get("wal_bytes", 1 << 20)), spill_threshold=options.get("spill", 131072))
    except StartupError as error:
        tell(f"failed {error}")
        sys.exit(error.exit_code)
    tell("open")
    taken = acknowledged = 0
    pending = 0
    while taken < count:
        bodies = [make_body(sizes[(taken + i) % len(sizes)]) for i in range(min(group, count - taken))]
        taken += len(bodies)
        for answer in rig.accept_all(bodies, options.get("piece", 1 << 16)):
            if isinstance(answer, SpoolError):
                tell(f"refused {type(answer).__name__}")
                continue
            acknowledged += 1
            tell(f"ack {answer.queue_id}")
            if acknowledged % keep:
                pending += 1
                rig.spool.settle(answer, None, 0.0, False, settled_of(answer, tell_gone))
    if options.get("stay"):
        rig.run_until(lambda: False)
    rig.close()
    for level, text in rig.reports:
        tell(f"report {level} {text}")
    tell("closed")


def tell_gone(item: SpoolItem) -> None:
    tell(f"gone {item.queue_id}")


def settled_of(item: SpoolItem, then):  # type: ignore[no-untyped-def]
    tell(f"leaving {item.queue_id}")

    def settled(error: SpoolError | None) -> None:
        assert error is None, error
        then(item)

    return settled


main()
