"""`smtpd check` and `smtpd config`: what they print where, and their exit codes."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from smtpd.cli.check import check_command
from smtpd.cli.config import config_command
from smtpd.config import load_settings

ROOT = pathlib.Path(__file__).parents[3]
GOOD = '[[listener]]\naddress = "127.0.0.1:0"\n[spool]\nengine = "discard"\n'
BAD = GOOD + 'path = 5\nengin = "x"\n'
WARNED = 'user = "no such user"\n' + GOOD


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "smtpd.toml"


def run(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))  # type: ignore[arg-type]


def test_check_of_a_good_file(file: pathlib.Path) -> None:
    file.write_text(GOOD)
    result = run(check_command, "-c", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{file}: ok\n", "")


def test_check_prints_every_fault_on_a_line_and_exits_1(file: pathlib.Path) -> None:
    file.write_text(BAD)
    result = run(check_command, "-c", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:5: spool.path: expected a text in quotes, not the number 5",
        f'{file}:6: spool.engin: unknown key (did you mean "engine"?)',
    ]


def test_warnings_are_printed_and_exit_0(file: pathlib.Path) -> None:
    file.write_text(WARNED)
    result = run(check_command, "-c", str(file))
    assert result.exit_code == 0
    assert result.stderr == f'{file}:1: user: warning: "no such user" is not a user of this machine\n'


def test_check_as_json(file: pathlib.Path) -> None:
    file.write_text(WARNED + "path = 5\n")
    result = run(check_command, "-c", str(file), "--json")
    assert result.exit_code == 1
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {
            "severity": "fault",
            "file": str(file),
            "line": 6,
            "key": "spool.path",
            "text": "expected a text in quotes, not the number 5",
        },
        {
            "severity": "warning",
            "file": str(file),
            "line": 1,
            "key": "user",
            "text": '"no such user" is not a user of this machine',
        },
    ]
    file.write_text(GOOD)
    result = run(check_command, "-c", str(file), "--json")
    assert (result.exit_code, result.output) == (0, "")


def test_check_of_a_missing_file(tmp_path: pathlib.Path) -> None:
    result = run(check_command, "-c", str(tmp_path / "none"))
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'none'}: can't be read: No such file or directory\n"


def test_config_prints_what_can_be_loaded_again(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    file.write_text(GOOD)
    result = run(config_command, "-c", str(file))
    assert result.exit_code == 0
    again = tmp_path / "again.toml"
    again.write_bytes(result.stdout_bytes)
    assert load_settings(str(again)) == load_settings(str(file))


def test_config_as_json(file: pathlib.Path) -> None:
    file.write_text(GOOD)
    result = run(config_command, "-c", str(file), "--json")
    assert len(result.stdout.splitlines()) == 1
    document = json.loads(result.stdout)
    assert document["limits"]["message_size"] == 52428800
    assert document["listener"][0]["address"] == "127.0.0.1:0"


def test_config_of_a_bad_file(file: pathlib.Path) -> None:
    file.write_text(BAD)
    result = run(config_command, "-c", str(file))
    assert result.exit_code == 78
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2


def test_loading_a_configuration_imports_no_command_line_and_no_idna_tables() -> None:
    program = (
        "import sys, smtpd.config\n"
        f"smtpd.config.load_settings({str(ROOT / 'conf' / 'examples' / 'mx.toml')!r})\n"
        "print([name for name in ('click', 'rich', 'idna', 'difflib') if name in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
