"""The socket where `smtpd pause` asks: what becomes of those who can't be accepted."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpd.master import control as control_module
from smtpd.master.control import NAME, MasterControl, Standing
from smtpd.net.loop import Loop


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, program: str, text: str) -> None:
        self.lines.append(text)

    warning = error = info


class Short:
    """A listening socket whose process has no descriptor for a client while it `is_short`."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.is_short = True
        self.failures = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.is_short:
            self.failures += 1
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


@pytest.fixture
def control(tmp_path: Path) -> Iterator[MasterControl]:
    loop = Loop()
    control = MasterControl(loop, str(tmp_path), {"pause": lambda done: done()}, lambda: Standing(state="paused"), Log())
    control.start()
    yield control
    control.close()
    loop.close()


def test_no_descriptor_left_is_waited_out_without_spinning(
    control: MasterControl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listening = control._socket
    assert listening is not None
    short = Short(listening)
    monkeypatch.setattr(control, "_socket", short)
    monkeypatch.setattr(control_module, "_RETRY_S", 3600.0)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / NAME))
        client.sendall(b'{"do": "pause"}\n')
        for _ in range(10):
            control.loop.turn(0.0)
        assert short.failures == 1
        short.is_short = False
        control._watch()
        give_up_at = time.monotonic() + 30
        while control.clients or not control._log.lines:  # type: ignore[attr-defined]
            assert time.monotonic() < give_up_at
            control.loop.turn(0.05)
        assert client.recv(4096) == b'{"state":"paused"}\n'
