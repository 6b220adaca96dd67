"""Kill -9 of a worker, of the master or of all at random moments, and how long it takes until service is back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time

from gateway import Gateway, wait_until

CONNECT_S = 5.0
BACK_S = 20.0


def seconds_to_service(gateway: Gateway) -> float:
    """How long until a new client is greeted."""
    started_s = time.monotonic()

    def is_greeted() -> bool:
        if gateway.running.poll() is not None:  # the port of the killed master wasn't free yet: as systemd would
            gateway.start(wait=False)
        try:
            with socket.create_connection((gateway.host, gateway.port), timeout=CONNECT_S) as sock:
                return sock.recv(4) == b"220 "
        except OSError:
            return False

    wait_until("a new client is greeted", is_greeted, BACK_S)
    return time.monotonic() - started_s


def await_service(gateway: Gateway) -> None:
    """Return when the server that was started last is ready. A client may have been greeted by workers that outlived their
    master for a moment and held its port, at which the new one gave up."""

    def is_ready() -> bool:
        if gateway.running.poll() is not None:
            gateway.start(wait=False)
        try:
            return gateway.http("/readyz")[0] == 200
        except OSError:
            return False

    wait_until("the server is ready", is_ready, 2 * BACK_S)


def kill_something(gateway: Gateway, chance: random.Random) -> str:
    """Kill a worker, the master, or all of them; a dead master is started again at once."""
    what = chance.choices(("worker", "master", "all"), (70, 20, 10))[0]
    if what == "worker":
        workers = gateway.worker_pids()
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL)
    elif what == "master":
        gateway.running.kill()
        gateway.running.wait()
        gateway.start(wait=False)
    else:
        gateway.kill()
        gateway.start(wait=False)
    return what
