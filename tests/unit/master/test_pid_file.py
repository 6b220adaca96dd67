"""The pid file's lock, not its number, decides who is the master."""

import os
from pathlib import Path

import pytest

from smtpd.errors import StartupError
from smtpd.master.pid_file import PidFile


def test_it_holds_our_pid_until_it_is_released(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.pid"
    pid_file = PidFile(str(path))
    pid_file.take()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()
    assert not path.exists()
    pid_file.release()


def test_a_file_left_behind_is_taken_over_whatever_it_says(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.pid"
    path.write_text("1234567890 and much more text than a pid\n")
    pid_file = PidFile(str(path))
    pid_file.take()
    assert path.read_text() == f"{os.getpid()}\n"
    pid_file.release()


def test_a_held_file_names_its_holder(tmp_path: Path) -> None:
    path = str(tmp_path / "smtpd.pid")
    first = PidFile(path)
    first.take()
    with pytest.raises(StartupError, match=f"pid {os.getpid()}") as caught:
        PidFile(path).take()
    assert caught.value.exit_code == os.EX_UNAVAILABLE
    first.release()
    second = PidFile(path)
    second.take()
    second.release()


def test_a_file_of_another_server_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "smtpd.pid"
    first = PidFile(str(path))
    first.take()
    path.unlink()
    path.write_text("another's")
    first.release()
    assert path.read_text() == "another's"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    (tmp_path / "smtpd.pid").symlink_to(tmp_path / "precious")
    with pytest.raises(StartupError) as caught:
        PidFile(str(tmp_path / "smtpd.pid")).take()
    assert caught.value.exit_code == os.EX_CANTCREAT
    assert (tmp_path / "precious").read_text() == "data"
