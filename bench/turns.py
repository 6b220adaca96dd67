"""Lets servers take turns at the same points, round by round: A B C, B C A, ...

Owns the order, the deadline and what happens when a run fails or a person interrupts: a point at which a server failed is left
out from then on (`failed` says why), and what was measured before the end is kept, with `end` telling how complete it is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.generator import GeneratorError
from bench.results import COMPLETE
from bench.servers import Server


@dataclass(slots=True)
class Turns[Record]:
    """What was measured; `failed` has "server, point" and the reason."""

    records: list[Record] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    end: str = COMPLETE


def take_turns[Record, Point](
    servers: Sequence[Server],
    points: Mapping[str, Point],
    rounds: int,
    limit_s: float,
    measure: Callable[[int, Server, str, Point, float], Record],
    is_fit: Callable[[Server, Point], bool] = lambda server, point: True,
) -> Turns[Record]:
    """Call `measure(round, server, name, point, seconds left)` in turn and return what it returned.

    `is_fit` tells which points a server takes part in. `measure` raises GeneratorError or OSError when a run fails.
    """
    turns: Turns[Record] = Turns()
    deadline = time.monotonic() + limit_s
    try:
        for number in range(rounds):
            first = number % max(1, len(servers))
            for name, point in points.items():
                for server in [*servers[first:], *servers[:first]]:
                    place = f"{server.name}, {name}"
                    if place in turns.failed or not is_fit(server, point):
                        continue
                    left_s = deadline - time.monotonic()
                    if left_s < 0:
                        turns.end = f"the time was up in round {number + 1} of {rounds}"
                        print(f"{turns.end}, the rest is left out", file=sys.stderr)
                        return turns
                    try:
                        turns.records.append(measure(number, server, name, point, left_s))
                    except (GeneratorError, OSError) as error:
                        turns.failed[place] = str(error)
                        print(f"round {number + 1}: {place}: {error}; {server.last_words()}", file=sys.stderr)
    except KeyboardInterrupt:
        turns.end = f"interrupted in round {number + 1} of {rounds}"
        print(f"{turns.end}: what was done is kept", file=sys.stderr)
    return turns
