"""A real redis-server on loopback that a test starts, hangs, kills and brings back on the same port."""

import os
import signal
import socket
import subprocess
import time

from peers import require_peer


class RedisServer:
    """`url` stays the same over `close` and `start`."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = None
        self.start()

    def start(self):
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [require_peer("redis-server", "redis-server"), "--port", str(self.port), "--bind", "127.0.0.1",
                 "--save", "", "--appendonly", "no", "--dir", str(self._folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while self.say(b"PING\r\n") != b"+PONG":
            assert self._process.poll() is None, (self._folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def say(self, command):
        """One inline command; the first line of the answer, b"" if there is none."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
                connection.sendall(command)
                return connection.makefile("rb").readline().rstrip()
        except OSError:
            return b""

    def pause(self):
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self):
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
