from __future__ import annotations

import importlib.util
import os

import click
import pytest

from smtpd.cli.load import exit_code, load_command
from smtpd.load.plot import MissingLibraryError


def refuse(*arguments: str) -> str:
    """The words with which it refuses to begin."""
    with pytest.raises(click.UsageError) as caught:
        load_command.main(list(arguments), standalone_mode=False)
    return caught.value.format_message()


def test_strangers_are_not_loaded_by_mistake() -> None:
    text = refuse("8.8.8.8:25")
    assert "public address" in text
    assert "--allow-public" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ("--poisson", "127.0.0.1:1"), ("-l", "1", "--size", "2", "127.0.0.1:1"), ("-o", "-L", "127.0.0.1:1"), ("127.0.0.1:x",),
        ("--rate", "5", "-w", "1", "127.0.0.1:1"), ("--rate", "0", "127.0.0.1:1"),
        ("--rate", "nan", "127.0.0.1:1"), ("--rate", "inf", "127.0.0.1:1"), ("--json", "/no/such/file", "127.0.0.1:1"),
        ("--json", "/", "127.0.0.1:1"), ("--size", "zipf:1", "127.0.0.1:1"),
        ("-4", "-6", "127.0.0.1:1"), ("-F", "/no/such/file", "127.0.0.1:1"), ("-t", "a b", "127.0.0.1:1"),
        ("-r", "5-2", "127.0.0.1:1"),
        ("-S", "a\nb", "127.0.0.1:1"), ("--tls", "--tls-implicit", "127.0.0.1:1"), ("--tls-verify", "127.0.0.1:1"),
        ("--duration", "0", "127.0.0.1:1"), ("-M", "two words", "127.0.0.1:1"), ("--expand", "127.0.0.1:1"),
        ("--tls", "--tls-verify", "--tls-ca", "/no/such", "127.0.0.1:1"), (),
        ("--bdat", "-o", "127.0.0.1:1"), ("-o", "-S", "x", "127.0.0.1:1"), ("-o", "--header", "X: y", "127.0.0.1:1"),
        ("--tls-name", "mx.example.net", "127.0.0.1:1"), ("-F", "x", "-l", "1", "127.0.0.1:1"),
        ("-F", "x", "--size", "uniform:1-2", "127.0.0.1:1"), ("-F", "x", "-S", "y", "127.0.0.1:1"),
        ("-F", "x", "--header", "X: y", "127.0.0.1:1"), ("-F", "x", "-o", "127.0.0.1:1"), ("--proxy", "v3", "127.0.0.1:1"),
        ("-o", "--xclient", "192.0.2.0/24", "127.0.0.1:1"), ("--xclient", "192.0.2", "127.0.0.1:1"),
        ("--proxy-clients", "192.0.2.0/24", "127.0.0.1:1"), ("--proxy", "v2", "--proxy-clients", "192.0.2.1/24", "127.0.0.1:1"),
    ],
)  # fmt: skip
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert refuse(*arguments)


def test_a_missing_library_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match=r"pip install 'smtpd\[plot\]'") as caught:
        load_command.main(["--plot", "x.png", "127.0.0.1:1"], standalone_mode=False)
    assert caught.value.exit_code == os.EX_UNAVAILABLE


@pytest.mark.parametrize("path", ["/no/such/x.png", "x.gif", "x"])
def test_a_plot_that_could_not_be_written_is_refused_before_the_run(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("smtpd.load.plot.require_library", lambda: None)
    assert "x" in refuse("--plot", path, "127.0.0.1:1")


@pytest.mark.parametrize(
    ("mails", "gave_up", "ready", "code"),
    [
        ({"accepted": 5}, "", 1, 0), ({"accepted": 5, "failed": 1}, "", 1, 1), ({"accepted": 5, "partial": 1}, "", 1, 1),
        ({"accepted": 5, "unsent": 1}, "", 1, 1), ({"failed": 3}, "", 0, 69), ({"accepted": 1}, "gone", 1, 1), ({}, "", 1, 1),
    ],
)  # fmt: skip
def test_exit_codes(mails: dict[str, int], gave_up: str, ready: int, code: int) -> None:
    whole = {"accepted": 0, "partial": 0, "failed": 0, "unsent": 0, **mails}
    report = {"mails": whole, "gave_up": gave_up, "connections": {"ready": ready}, "load_maker": {"lost_processes": 0}}
    assert exit_code(report) == code
    report["load_maker"] = {"lost_processes": 1}
    assert exit_code(report) == (code or 1)
