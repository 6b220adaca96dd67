"""Runs a real `smtpd sink` for tests, started by exec on a port of its own; its report and what it wrote, at the end."""

from __future__ import annotations

import json
import signal
import smtplib
import socket
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from gateway import PROGRAM, free_port, own_loopback_address, wait_until

START_S = 20.0
STOP_S = 30.0


class RunningSink:
    """`with RunningSink(tmp_path, "-r", "RCPT") as sink`: it listens; after `stop` or its own end there is `report`."""

    def __init__(self, folder: Path, *options: str, has_report: bool = True, listen: str = "") -> None:
        self.folder = folder
        self.host = own_loopback_address()
        self.port = free_port(self.host)
        self.options = options
        self.report: dict[str, Any] = {}
        self._listen = listen or f"{self.host}:{self.port}"
        self._report_file = folder / "report.json" if has_report else None
        self._stderr = folder / "sink.err"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> RunningSink:
        report = ("--report", str(self._report_file)) if self._report_file else ()
        with self._stderr.open("wb") as stderr:
            self._process = subprocess.Popen(
                [PROGRAM, "sink", self._listen, *self.options, *report],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        process = self._process
        wait_until("the sink listens", lambda: "discarding all mail" in self.stderr or process.poll() is not None, START_S)
        assert process.poll() is None, self.stderr
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        process = self._process
        assert process is not None
        if process.poll() is None and kind is not None:  # the test has failed: that is what is to be told
            process.kill()
            process.communicate()
        elif not process.stdout or not process.stdout.closed:
            self.stop()

    def stop(self, number: int = signal.SIGTERM) -> str:
        """End it, if it has not ended by itself; return its stdout."""
        process = self._process
        assert process is not None
        if process.poll() is None:
            process.send_signal(number)
        return self.await_end()

    def await_end(self) -> str:
        """Wait until it has ended by itself; return its stdout."""
        process = self._process
        assert process is not None
        try:
            out, _ = process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the sink did not end:\n{self.stderr}") from None
        assert process.returncode == 0, f"ended with {process.returncode}:\n{self.stderr}"
        assert "Traceback" not in self.stderr
        if self._report_file:
            self.report = json.loads(self._report_file.read_text())
        return out.decode()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=20)

    def smtp(self) -> smtplib.SMTP:
        return smtplib.SMTP(self.host, self.port, "client.example.com", timeout=20)

    def send(self, count: int = 1, recipient: str = "b@example.org") -> None:
        """Mails on one connection, by smtplib."""
        with self.smtp() as smtp:
            for number in range(count):
                smtp.sendmail("a@example.com", [recipient], f"Subject: {number}\r\n\r\n.dot\r\ntext\r\n")
