"""What can be wrong at the start: one clear line, a code from sysexits.h, no traceback, nothing left
behind."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from gateway import PROGRAM, Gateway
from stand_in import StandIn

IS_ROOT = os.geteuid() == 0


def fails(command: list[str | Path], folder: Path, env: dict[str, str] | None = None) -> tuple[int, str]:
    """The exit code and stderr of a server that must not start."""
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


def serve(server: Gateway) -> tuple[int, str]:
    return fails([PROGRAM, "serve", "-c", server.config], server.folder)


def test_a_taken_port_is_said_in_one_line(tmp_path: Path) -> None:
    server = Gateway(tmp_path)
    with socket.create_server((server.host, server.port)):
        code, text = serve(server)
    assert code == os.EX_UNAVAILABLE
    assert text == f"smtpd: can't listen on {server.host}:{server.port}: the address is in use by another program\n"
    assert not (tmp_path / "run" / "smtpd.pid").exists()


def test_a_taken_metrics_port_is_said_too(tmp_path: Path) -> None:
    server = Gateway(tmp_path)
    with socket.create_server((server.host, server.metrics_port)):
        code, text = serve(server)
    assert (code, text.count("\n")) == (os.EX_UNAVAILABLE, 1)
    assert f"{server.metrics_port}" in text


def test_a_second_server_with_the_same_run_dir_is_refused_and_the_first_named(tmp_path: Path) -> None:
    with StandIn(tmp_path) as server:
        code, text = serve(server)
        assert code == os.EX_UNAVAILABLE
        assert f"pid {server.running.pid}" in text
        assert server.greeting()


def test_a_second_server_with_its_own_run_dir_cannot_share_the_port(tmp_path: Path) -> None:
    with StandIn(tmp_path / "first") as server:
        second = Gateway(tmp_path / "second")
        second.settings["listener"] = server.settings["listener"]
        second.write_config()
        code, text = serve(second)
        assert code == os.EX_UNAVAILABLE
        assert "in use" in text
        assert server.greeting()


def test_a_stale_pid_file_is_taken_over(tmp_path: Path) -> None:
    pid_file = tmp_path / "run" / "smtpd.pid"
    pid_file.parent.mkdir()
    pid_file.write_text(f"{os.getpid()}\n")
    with StandIn(tmp_path) as server:
        assert pid_file.read_text() == f"{server.running.pid}\n"
        assert server.stop() == 0
    assert not pid_file.exists()


@pytest.mark.parametrize("key", ["spool", "run_dir", "maildir"])
def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, key: str) -> None:
    server = Gateway(tmp_path)
    (tmp_path / "file").write_text("")
    path = str(tmp_path / "file" / "sub")
    if key == "spool":
        server.settings["spool"]["path"] = path
    elif key == "run_dir":
        server.settings["run_dir"] = path
    else:
        server.settings["route"][0]["path"] = path
    server.write_config()
    code, text = serve(server)
    assert (code, text.count("\n")) == (os.EX_CANTCREAT, 1)
    assert path in text


def test_every_fault_of_the_file_is_printed(tmp_path: Path) -> None:
    server = Gateway(tmp_path)
    server.settings.update(hostnam="x", workers="many")
    server.write_config()
    code, text = serve(server)
    assert code == os.EX_CONFIG
    assert all(line.startswith(f"{server.config}:") for line in text.splitlines())
    assert "hostnam" in text
    assert "workers" in text


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    code, text = fails([PROGRAM, "serve", "-c", "absent.toml"], tmp_path)
    assert (code, text.count("\n")) == (os.EX_CONFIG, 1)
    assert "absent.toml" in text


def test_a_missing_extension_is_said_with_what_to_do(tmp_path: Path) -> None:
    package = tmp_path / "src" / "smtpd"
    source = Path(__file__).parents[2] / "smtpd"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    code, text = fails([sys.executable, "-m", "smtpd", "serve"], tmp_path, env)
    assert (code, text.count("\n")) == (os.EX_UNAVAILABLE, 1)
    assert "make build" in text


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    code, text = fails([PROGRAM, "serv"], tmp_path)
    assert code == os.EX_USAGE
    assert "serv" in text


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_root_that_listens_to_the_world_must_say_whom_to_become(tmp_path: Path) -> None:
    server = Gateway(tmp_path, {"policy": {"relay_domains": ["example.org"]}})
    server.settings["listener"][0]["address"] = f"0.0.0.0:{server.port}"
    server.write_config()
    code, text = serve(server)
    assert (code, text.count("\n")) == (os.EX_CONFIG, 1)
    assert "`user`" in text


@pytest.mark.skipif(not IS_ROOT, reason="needs root")
def test_an_unknown_user_is_said(tmp_path: Path) -> None:
    code, text = serve(Gateway(tmp_path, {"user": "nobody-of-that-name"}))
    assert (code, text.count("\n")) == (os.EX_NOUSER, 1)
