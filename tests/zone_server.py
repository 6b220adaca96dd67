"""A real name server on loopback with zones of the test's own: Debian's knot, authoritative for all that is asked of it.

`pause` makes it hang (SIGSTOP), `close` takes it down. Answers over 1,232 octets come truncated over UDP, whole over TCP.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time

import dns.exception
import dns.message
import dns.query
from peers import require_peer

_CONFIG = """\
server:
    rundir: {folder}
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: {folder}
control:
    listen: {folder}/control.sock
log:
  - target: stderr
    any: warning
template:
  - id: default
    storage: {folder}
    file: "%s.zone"
    journal-content: none
    zonefile-load: whole
zone:
"""
_HEAD = """\
$ORIGIN {zone}.
$TTL 600
@ SOA ns.{zone}. hostmaster.{zone}. 1 3600 900 86400 60
@ NS ns.{zone}.
ns A 127.0.0.1
"""


def free_port():
    """A port that is free for both UDP and TCP now."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            try:
                udp.bind(tcp.getsockname())
            except OSError:
                continue
            return tcp.getsockname()[1]
    raise AssertionError("no port is free for both UDP and TCP")


class ZoneServer:
    """`zones` maps a zone's name to the lines of its zone file; a zone whose lines are None is one that the server can't load,
    which it answers with SERVFAIL."""

    def __init__(self, folder, zones):
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        config = _CONFIG.format(folder=folder, port=self.port)
        for zone, lines in zones.items():
            config += f'  - domain: "{zone}"\n'
            if lines is not None:
                (folder / f"{zone}.zone").write_text(_HEAD.format(zone=zone) + lines)
        (folder / "knot.conf").write_text(config)
        self._zone = next(zone for zone, lines in zones.items() if lines is not None)
        self._errors = (folder / "errors").open("w+b")
        self._process = subprocess.Popen(
            [require_peer("knot", "knotd"), "-c", str(folder / "knot.conf")],
            stdin=subprocess.DEVNULL, stdout=self._errors, stderr=self._errors,
        )  # fmt: skip
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self):
        question = dns.message.make_query(f"ns.{self._zone}", "A")
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(dns.exception.Timeout, OSError):
                if dns.query.udp(question, "127.0.0.1", timeout=0.2, port=self.port).answer:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._errors.seek(0)
                raise AssertionError(self._errors.read().decode())

    def pause(self):
        """Hang: questions still reach its socket."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self):
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self):
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(10)
        self._errors.close()
