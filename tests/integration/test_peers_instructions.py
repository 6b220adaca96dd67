"""What a mail costs in instructions stays below the ceilings of bench/instructions.toml."""

from __future__ import annotations

import pytest
from peers import require_peer

from bench.instruction_gate import CEILINGS, count_instructions, judge, read_ceilings


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_mail_costs_no_more_instructions_than_allowed() -> None:
    require_peer("valgrind", "valgrind")
    verdicts = judge(count_instructions(), read_ceilings())
    assert verdicts
    dear = [str(verdict) for verdict in verdicts if not verdict.is_kept]
    assert not dear, f"{'; '.join(dear)}. {CEILINGS.name} tells how to find what costs more, and how to raise a ceiling"
