"""bench.tables and bench.results: ratios within a round, the Markdown, the file names, the marked section."""

from __future__ import annotations

import json
import os
import re
import resource
from pathlib import Path

import pytest

from bench import machine, parser_speed, results, tables
from bench.generator import Load, Measured, source_command
from bench.tables import Round

LOAD = "kept connections"


def one(
    number: int, server: str, cpu_us: float, mails_per_s: float, disk_us: float | None = None, commits: int | None = None
) -> Round:
    return Round(number, LOAD, server, Measured(1000, 1000 / mails_per_s, int(cpu_us * 1e6), True), disk_us, commits)


ROUNDS = [
    one(0, "floor", 30, 20_000),
    one(0, "smtp-sink", 90, 10_000),
    one(0, "smtpd serve", 60, 8_000, 500, 100),
    one(0, "postfix", 2_000, 800, 400),
    one(1, "floor", 60, 10_000),  # a slow minute: everything costs twice as much
    one(1, "smtp-sink", 180, 5_000),
    one(1, "smtpd serve", 120, 4_000, 900, 200),
    one(1, "postfix", 4_000, 400, 700),
    one(2, "smtpd serve", 600, 100),  # no base in this round: counts for no ratio
]


def row(server: str) -> dict[str, object]:
    return next(row for row in tables.summarize(ROUNDS) if row["server"] == server)


def test_ratios_are_taken_within_a_round() -> None:
    serve = row("smtpd serve")
    assert serve["cpu_by_floor"] == 2.0
    assert serve["cpu_by_smtp-sink"] == pytest.approx(0.667)
    assert serve["speed_by_postfix"] == 10.0
    assert serve["cpu_us_per_mail"] == 120
    assert serve["fdatasync_us"] == 700
    assert serve["rounds"] == 3
    assert serve["commits_per_s"] == 800
    assert serve["mails_per_commit"] == 7.5


def test_a_server_without_a_disk_has_no_durable_figures() -> None:
    assert "fdatasync_us" not in row("floor")
    assert "speed_by_postfix" not in row("floor")
    assert row("floor")["cpu_by_floor"] == 1.0


def test_no_base_no_ratio() -> None:
    assert tables.median_ratio(ROUNDS, LOAD, "floor", "absent", lambda run: run.mails_per_s) is None


def test_the_table_shows_each_server_and_what_was_left_out() -> None:
    content = {
        "summary": tables.summarize(ROUNDS),
        "options": {"rounds": 3, "sessions": 20, "workers": 1},
        "filesystem": "ext4",
        "versions": {"floor": "floor.c"},
        "left_out": {"aiosmtpd": "not installed"},
    }
    text = tables.render_tables(content)
    assert "**Kept connections**" in text
    assert "| smtpd serve | 120.0 | 2.00× | 0.67× | 4,000 | 10.00× | 800 | 7.5 | 700 |" in text
    assert "| floor | 45.0 | 1.00× | 0.33× | 15,000 |  |  |  |  |" in text
    assert "Left out: aiosmtpd: not installed." in text


def test_rounds_are_json() -> None:
    line = json.loads(json.dumps(ROUNDS[2].as_json()))
    assert line["cpu_us_per_mail"] == 60
    assert line["mails_per_s"] == 8000
    assert line["fdatasync_us"] == 500
    assert json.loads(json.dumps(ROUNDS[0].as_json()))["fdatasync_us"] is None


def test_a_result_names_day_and_machine(tmp_path: Path) -> None:
    path = results.write_result("thing", {"rounds": [1]}, tmp_path / "results")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-thing\.json", path.name)
    content = json.loads(path.read_text())
    assert content["rounds"] == [1]
    assert content["machine"]["cores"] == len(os.sched_getaffinity(0))
    assert content["machine"]["kernel"].startswith("Linux")
    assert os.uname().nodename not in json.dumps(list(content["machine"].values())).split()


def test_only_the_marked_section_is_replaced() -> None:
    text = "before\n<!-- x:begin -->\nold\n<!-- x:end -->\nafter\n"
    new = results.replace_section(text, "x", r"new \1 text")
    assert new == "before\n<!-- x:begin -->\nnew \\1 text\n<!-- x:end -->\nafter\n"
    with pytest.raises(ValueError, match="0 places"):
        results.replace_section(text, "y", "")


def test_the_readme_has_every_marker() -> None:
    text = results.README.read_text(encoding="utf-8")
    for name in ("compare", "idle", "busy-thread", "spread", "memory-mail", "parser-speed"):
        assert "same" in results.replace_section(text, name, "same")


def test_p99_leaves_one_in_a_hundred_out() -> None:
    assert results.p99([float(n) for n in range(1, 101)]) == 99
    assert results.p99([float(n) for n in range(1, 1001)]) == 990
    assert results.p99([1.0, 5.0, 3.0]) == 5
    assert results.p99([7.0]) == 7


def test_a_scratch_folder_is_open_to_others_and_removed(tmp_path: Path) -> None:
    with results.scratch_folder(str(tmp_path)) as folder:
        assert folder.stat().st_mode & 0o777 == 0o755
        (folder / "spool").mkdir()
    assert not folder.exists()


def test_open_files_are_raised_up_to_the_hard_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    results.raise_open_files(soft)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
    if hard != resource.RLIM_INFINITY:
        with pytest.raises(OSError, match="hard limit"):
            results.raise_open_files(hard + 1)


def test_the_disk_is_measured_and_left_clean(tmp_path: Path) -> None:
    assert machine.fdatasync_us(tmp_path, count=3) > 0
    assert list(tmp_path.iterdir()) == []
    assert machine.filesystem_of(Path("/proc")) == "proc"


def test_a_kept_connection_is_an_option_of_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: f"/bin/{name}")
    kept = source_command(Load("x", 9, 4096, is_kept=True), 9, "127.0.0.1", 25)
    once = source_command(Load("x", 9, 65536, is_kept=False, sessions=4), 9, "127.0.0.1", 25)
    assert kept[:2] == ["/bin/smtp-source", "-d"]
    assert " ".join(kept).endswith("-s 9 -l 4096 -m 9 -f a@example.com -t b@example.org 127.0.0.1:25")
    assert "-d" not in once
    assert " ".join(once[1:7]) == "-s 4 -l 65536 -m 9"


def test_the_parser_is_set_beside_its_oracle() -> None:
    report = {
        "benchmarks": [
            {"name": "test_body[parser-x]", "group": "x", "stats": {"median": 2e-6}},
            {"name": "test_body[oracle-x]", "group": "x", "stats": {"median": 90e-6}},
        ]
    }
    assert "| x | 2.00 | 90.0 | 45× |" in parser_speed.render_table(parser_speed.medians(report))
