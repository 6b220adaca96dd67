"""Cost against the size of a mail, 1 KB to 10 MB, and of a mix as inbound mail has: `python -m bench.sizes`."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import NormalDist, mean

from bench.curves import Curve, run_curve
from bench.generator import Load, Measured
from bench.measuring import Pilot, drive_server
from bench.part import part_parser
from bench.roster import choose
from bench.servers import Server

_KB, _MB = 1024, 1024 * 1024
SIZES = {
    "1 KB": _KB,
    "4 KB": 4 * _KB,
    "16 KB": 16 * _KB,
    "64 KB": 64 * _KB,
    "256 KB": 256 * _KB,
    "1 MB": _MB,
    "10 MB": 10 * _MB,
}
QUICK = ("1 KB", "64 KB", "1 MB", "mix")
_MEDIAN_BYTES, _SIGMA = 30 * _KB, 1.5  # lognormal: a twentieth of the mails is over 350 KB
_MIX_PARTS = 10
_MOST_MAILS = 20_000


def mix_sizes() -> tuple[int, ...]:
    """Return the sizes of the mix: the middles of ten equal parts of the distribution."""
    normal = NormalDist(math.log(_MEDIAN_BYTES), _SIGMA)
    return tuple(round(math.exp(normal.inv_cdf((part + 0.5) / _MIX_PARTS))) for part in range(_MIX_PARTS))


def loads() -> dict[str, Load]:
    fixed = {name: Load(name, _MOST_MAILS, size, is_kept=True) for name, size in SIZES.items()}
    mixed = mix_sizes()
    return {**fixed, "mix": Load("mix", _MOST_MAILS, round(mean(mixed)), is_kept=True, mix_bytes=mixed)}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = part_parser("sizes", __doc__, rounds=3, limit_s=600)
    parser.add_argument("--target", type=float, default=0.6, help="seconds of a run (default: 0.6)")
    options = parser.parse_args(arguments)
    chosen = loads()
    if options.quick:
        options.rounds, options.target = 1, 0.15
        chosen = {name: chosen[name] for name in QUICK}
    pilot = Pilot(options.target)

    def run(server: Server, load: Load, left_s: float, folder: Path) -> Measured:
        return drive_server(server, load, pilot.mails(server, load, left_s), left_s)

    curve = Curve("sizes", "Cost against size", "octets", chosen, SIZES, lambda size, cost: cost)
    return run_curve(curve, choose(options.servers), options, run)


if __name__ == "__main__":
    sys.exit(main())
