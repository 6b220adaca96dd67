"""Kill -9 of a worker, of the master or of all at random moments, and how long it takes until service is back."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time

from gateway import Gateway, wait_until

SERVICE_BOUND_S = 5.0  # any single time; the median must be under the second that is promised


def seconds_to_service(gateway: Gateway) -> float:
    """How long until a new client is greeted."""
    started_s = time.monotonic()

    def is_greeted() -> bool:
        if gateway.running.poll() is not None:  # the port of the killed master wasn't free yet: as systemd would
            gateway.start(wait=False)
        try:
            with socket.create_connection((gateway.host, gateway.port), timeout=SERVICE_BOUND_S) as sock:
                return sock.recv(4) == b"220 "
        except OSError:
            return False

    wait_until("a new client is greeted", is_greeted, 4 * SERVICE_BOUND_S)
    return time.monotonic() - started_s


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
