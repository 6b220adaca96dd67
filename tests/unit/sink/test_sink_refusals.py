"""Options of `smtpd sink` that are refused: one clear line and a code of sysexits, before anything is bound."""

from __future__ import annotations

import os
from pathlib import Path

import click
import pytest

from smtpd.cli.sink import sink_command
from smtpd.errors import StartupError


def refusal(*options: str) -> tuple[int, str]:
    """The exit code and text of a sink that must not start."""
    with pytest.raises((click.UsageError, StartupError)) as caught:
        sink_command.main(list(options), standalone_mode=False)
    error = caught.value
    return error.exit_code if isinstance(error, StartupError) else os.EX_USAGE, getattr(error, "message", None) or str(error)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-r", "RCTP"], 'did you mean "RCPT"'),
        (["-b", "550 x", "-r", "RCPT"], "is not a reply"),
        (["-W", "RCPT"], "has no delay"),
        (["-w", "soon"], "is not a duration"),
        (["-d", "a", "-D", "b"], "can't be combined"),
        (["-T", "70000"], "70000"),
        (["--hide", "PIPELININ"], 'did you mean "PIPELINING"'),
        (["-S", r"\q"], r"\q"),
        (["-t", "x"], "is not a duration"),
        (["-h", "a_b"], "underscore"),
        (["nowhere"], "is not"),
        (["127.0.0.1:0", "x"], "is not a valid integer"),
    ],
)
def test_a_wrong_option_is_told_in_a_line(options: list[str], words: str) -> None:
    code, text = refusal(*options)
    assert code == os.EX_USAGE
    assert words in text


def test_faults_of_a_scenario_are_all_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.toml").write_text('sed = 1\n[[rule]]\nat = ["rcpt"]\nreply = "200 x"\n')
    code, text = refusal("--scenario", "s.toml")
    assert code == os.EX_CONFIG
    assert text.splitlines() == [
        's.toml:1: sed: unknown key (did you mean "seed"?)',
        's.toml:4: rule.reply: expected a reply that refuses, such as "450 4.2.0 Mailbox busy", not "200 x"',
    ]


def test_a_report_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    assert refusal("--report", f"{tmp_path}/none/r") == (
        os.EX_CANTCREAT,
        f"can't write the report {tmp_path}/none/r: No such file or directory",
    )


@pytest.mark.parametrize("address", ["0.0.0.0:0", ":2525"])
def test_root_must_say_whom_to_become_where_others_can_connect(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    code, text = refusal(address)
    assert code == os.EX_USAGE
    assert "say -u USER" in text


@pytest.mark.parametrize("option", ["-u", "-R"])
def test_a_plain_user_can_have_neither_another_user_nor_root(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert refusal(option, "nobody") == (os.EX_NOPERM, f"{option} is for a sink that root has started")
