"""A Gateway whose workers are stand-ins: what supervises is tested without what is supervised."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from gateway import Gateway, wait_until

SERVER = Path(__file__).with_name("stand_in_server.py")


class StandIn(Gateway):
    """A Gateway whose workers are stand-ins."""

    def __enter__(self) -> StandIn:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.process is not None:
            self.kill()

    def set_behaviour(self, word: str) -> None:
        """What workers that are started from now on do."""
        (self.folder / "behaviour.new").write_text(word)
        (self.folder / "behaviour.new").rename(self.folder / "behaviour")

    def start(self, *, wait: bool = True) -> None:
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error::DeprecationWarning", SERVER, self.config],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def connect(self, port: int = 0) -> tuple[socket.socket, dict[str, Any]]:
        """A connection that was greeted, and the greeting."""
        sock = socket.create_connection((self.host, port or self.port), timeout=10)
        return sock, json.loads(sock.makefile("rb").readline() or b"null")

    def greeting(self, port: int = 0) -> dict[str, Any]:
        """Who serves a new connection now."""
        sock, greeting = self.connect(port)
        sock.close()
        return greeting

    def ready_pids(self) -> dict[int, int]:
        """slot -> pid of the ready workers of the newest generation."""
        status = self.status()
        return {
            worker["slot"]: worker["pid"]
            for worker in status["workers"]
            if worker["state"] == "ready" and worker["generation"] == status["generation"]
        }


class Callers:
    """Two clients that connect, want to be greeted, and leave, again and again. `trouble` is what went wrong."""

    def __init__(self, server: StandIn, port: int = 0) -> None:
        self._server = server
        self._port = port
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(2)]
        self.served = 0
        self.trouble: list[str] = []

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_served(self) -> None:
        """Return when some more were served."""
        wanted, trouble = self.served + 5, len(self.trouble)
        wait_until("clients are served", lambda: self.served >= wanted or len(self.trouble) > trouble, 20)

    def wait_refused(self) -> None:
        """Return when some more were refused."""
        wanted = len(self.trouble) + 5
        wait_until("clients are refused", lambda: len(self.trouble) >= wanted, 20)

    def _call(self) -> None:
        while not self._is_over.is_set():
            try:
                assert "slot" in self._server.greeting(self._port)
                self.served += 1
            except (OSError, ValueError, TypeError) as error:
                self.trouble.append(repr(error))
                self._is_over.wait(0.02)  # so that it doesn't spin while nobody serves
