"""bench.turns and bench.part: the order of the turns, what fails is left out, and what was measured outlives an interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import part, results
from bench.generator import GeneratorError, Load
from bench.roster import choose, with_workers
from bench.servers import Floor, Server, SmtpdSink
from bench.sizes import mix_sizes
from bench.turns import Turns, take_turns


class Named(Server):
    def __init__(self, name: str) -> None:
        self.name = name
        self.folder = Path("/nonexistent")


SERVERS = [Named("a"), Named("b"), Named("c")]


def run(measure: Any, rounds: int = 3, limit_s: float = 60.0, points: tuple[str, ...] = ("x",)) -> Turns[str]:
    return take_turns(SERVERS, {point: point for point in points}, rounds, limit_s, measure)


def note(number: int, server: Server, name: str, point: str, left_s: float) -> str:
    assert name == point
    assert left_s > 0
    return f"{number}{server.name}{name}"


def test_each_round_begins_with_another_server() -> None:
    turns = run(note)
    assert turns.records == ["0ax", "0bx", "0cx", "1bx", "1cx", "1ax", "2cx", "2ax", "2bx"]
    assert turns.end == "complete"
    assert not turns.failed


def test_what_fails_is_left_out_from_then_on() -> None:
    def measure(number: int, server: Server, name: str, point: str, left_s: float) -> str:
        if number == 1 and server.name == "b":
            raise GeneratorError("refused")
        return note(number, server, name, point, left_s)

    turns = run(measure)
    assert turns.records == ["0ax", "0bx", "0cx", "1cx", "1ax", "2cx", "2ax"]
    assert turns.failed == {"b, x": "refused"}


def test_an_interrupt_keeps_what_was_done() -> None:
    def measure(number: int, server: Server, name: str, point: str, left_s: float) -> str:
        if (number, server.name) == (1, "c"):
            raise KeyboardInterrupt
        return note(number, server, name, point, left_s)

    turns = run(measure)
    assert turns.records == ["0ax", "0bx", "0cx", "1bx"]
    assert turns.end == "interrupted in round 2 of 3"


def test_the_deadline_ends_the_rounds() -> None:
    turns = run(note, limit_s=-1.0)
    assert turns.records == []
    assert turns.end == "the time was up in round 1 of 3"


def test_points_that_do_not_fit_are_passed_over() -> None:
    turns = take_turns(SERVERS, {"x": 1, "y": 2}, 1, 60.0, lambda *found: found[2], lambda server, point: point == 2)
    assert turns.records == ["y", "y", "y"]


def content(end: str, *rounds: int) -> dict[str, Any]:
    return {"end": end, "failed": {}, "rounds": [{"round": number} for number in rounds]}


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "README", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("<!-- sizes:begin -->\nold\n<!-- sizes:end -->\n")
    return tmp_path


def test_a_whole_run_is_kept_and_shown(pages: Path) -> None:
    assert part.finish("sizes", content("complete", 1, 2), "new table\n", None, is_quick=False) == 0
    assert "new table" in (pages / "README.md").read_text()
    assert [path.name.split("-", 3)[3] for path in (pages / "results").iterdir()] == ["sizes.json"]


@pytest.mark.parametrize(
    ("end", "rounds", "code"),
    [("interrupted in round 2 of 3", (1, 2), 130), ("the time was up in round 1 of 3", (1,), 0)],
)
def test_a_part_of_a_run_is_kept_and_not_shown(pages: Path, end: str, rounds: tuple[int, ...], code: int) -> None:
    assert part.finish("sizes", content(end, *rounds), "new table\n", None, is_quick=False) == code
    assert "old" in (pages / "README.md").read_text()
    assert [path.name.split("-", 3)[3] for path in (pages / "results").iterdir()] == ["sizes-partial.json"]


def test_a_quick_run_and_an_empty_one_leave_nothing(pages: Path) -> None:
    assert part.finish("sizes", content("complete", 1), "new table\n", None, is_quick=True) == 0
    assert part.finish("sizes", content("complete"), "", None, is_quick=False) == 1
    assert part.finish("sizes", content("interrupted in round 1 of 3"), "", None, is_quick=False) == 130
    assert not (pages / "results").exists()


def test_every_part_with_a_table_has_its_place_in_the_readme() -> None:
    text = results.README.read_text(encoding="utf-8")
    for name in part.SECTIONS:
        assert "same" in results.replace_section(text, name, "same")


def test_servers_are_chosen_by_name() -> None:
    assert choose("floor, smtpd sink") == [Floor, SmtpdSink]
    assert choose("", [Floor]) == [Floor]
    with pytest.raises(ValueError, match="unknown: nothing"):
        choose("floor,nothing")
    twice = with_workers(SmtpdSink, 2)
    assert (twice.name, twice.workers, SmtpdSink.workers) == ("smtpd sink ×2", 2, 1)


def test_a_mix_is_sent_by_a_generator_for_each_size() -> None:
    sizes = mix_sizes()
    assert list(sizes) == sorted(sizes)
    assert sizes[4] < 30 * 1024 < sizes[5]
    parts = Load("mix", 0, 1, is_kept=True, mix_bytes=sizes).parts(200)
    assert [(load.size_bytes, load.sessions, mails) for load, mails in parts] == [(size, 2, 20) for size in sizes]
