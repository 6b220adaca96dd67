"""A real master with a stand-in for the worker: what supervises is tested without what is supervised.

Run as a program it is the server: `python stand_in_server.py CONFIG`. The worker greets each connection
with one line of JSON (slot, generation, pid, host name) and keeps it until the client leaves. How a new
worker behaves is read from the file `behaviour` beside the configuration: serve (default), fail, crash,
mute (never ready), late (crashes after ready), held (those of a program's first generation are ready only when
the word is another one); "no program": the master doesn't even start.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any


def run_stand_in(boot: Any) -> int:
    """The worker: accepts, greets, beats, drains; on the project's own loop."""
    from smtpd.net.loop import Loop

    word = _read("behaviour") or "serve"
    if word == "fail":
        boot.channel.send(json.dumps({"is": "failed", "text": "no luck today", "exit_code": 75}).encode())
        return 75
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    loop = Loop()
    status = boot.slabs.status(boot.bank)
    open_sockets: set[socket.socket] = set()
    watched: set[int] = set()
    is_draining = False
    is_paused = boot.is_paused
    served: list[int] = []
    greeting = {
        "slot": boot.slot,
        "generation": boot.generation,
        "pid": os.getpid(),
        "hostname": boot.settings.hostname,
        "uid": os.getresuid(),
        "groups": os.getgroups(),
    }

    def beat() -> None:
        status.heartbeat_s = time.monotonic()
        status.sessions = len(open_sockets)
        loop.call_later(0.1, beat)

    def accept(listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError as error:
            if error.errno == errno.EINVAL:  # it listens no more
                loop.forget(listening.fileno())
                watched.discard(listening.fileno())
            return
        sock.sendall(json.dumps(greeting).encode() + b"\n")
        open_sockets.add(sock)
        loop.add_reader(sock.fileno(), lambda: leave(sock))

    def leave(sock: socket.socket) -> None:
        loop.forget(sock.fileno())
        open_sockets.discard(sock)
        sock.close()
        if is_draining and not open_sockets:
            loop.stop()

    def serve(slots: list[int]) -> None:
        nonlocal served
        served = slots
        for fd in watched:
            loop.forget(fd)
        watched.clear()
        if is_paused:
            return
        for listener in boot.listeners:
            for sock in listener.sockets if listener.is_shared else [listener.sockets[s] for s in slots]:
                watched.add(sock.fileno())
                loop.add_reader(sock.fileno(), lambda sock=sock: accept(sock))

    def stop_listening() -> None:
        for fd in watched:
            loop.forget(fd)
        watched.clear()
        for listener in boot.listeners:
            for sock in listener.sockets:
                sock.close()

    def drain() -> None:
        nonlocal is_draining
        if is_draining:
            return
        is_draining = True
        stop_listening()
        loop.call_later(boot.settings.drain_timeout, loop.stop)
        if boot.channel.fileno() >= 0:
            boot.channel.send(b'{"is": "draining"}')
        if not open_sockets:
            loop.stop()

    def pause() -> None:
        nonlocal is_paused
        is_paused = True
        for listening in [sock for entry in boot.listeners for sock in entry.sockets if sock.fileno() in watched]:
            loop.forget(listening.fileno())
            before = -1
            while before != len(open_sockets):
                before = len(open_sockets)
                accept(listening)
        serve(served)
        boot.channel.send(b'{"is": "paused"}')

    def hear() -> None:
        nonlocal is_paused
        data, fds, _, _ = socket.recv_fds(boot.channel, 65536, 64)
        if not data:
            stop_listening()
            loop.stop()
            return
        message = json.loads(data)
        if message["do"] == "serve":
            serve(message["slots"])
        elif message["do"] == "pause":
            pause()
        elif message["do"] == "resume":
            is_paused = False
            serve(served)
        else:
            for name, fd in zip(message["names"], fds, strict=True):
                entry = next(entry for entry in boot.listeners if entry.name == name)
                assert len(entry.sockets) == message["slot"]
                entry.sockets.append(socket.socket(fileno=fd))

    def await_release() -> None:
        if _read("behaviour") == "held":
            loop.call_later(0.02, await_release)
        else:
            boot.channel.send(b'{"is": "ready"}')

    def reopen() -> None:
        with open("reopened", "a") as stream:
            stream.write(f"{boot.slot}\n")

    loop.watch_signals({signal.SIGTERM: drain, signal.SIGINT: loop.stop, signal.SIGQUIT: loop.stop, signal.SIGUSR1: reopen})
    beat()
    serve(list(boot.serves))
    loop.add_reader(boot.channel.fileno(), hear)
    if word == "held" and boot.generation == 1:
        await_release()
    elif word != "mute":
        boot.channel.send(b'{"is": "ready"}')
    if word == "late":
        loop.call_later(0.05, lambda: os.kill(os.getpid(), signal.SIGSEGV))
    loop.run()
    return 0


def _read(name: str) -> str:
    try:
        return Path(name).read_text()
    except FileNotFoundError:
        return ""


def _serve(path: str) -> int:
    from smtpd.config.load import load_settings
    from smtpd.errors import StartupError
    from smtpd.master.inheritance import telling_predecessor
    from smtpd.master.start import run_master

    try:
        with telling_predecessor():
            settings = load_settings(path)
        if _read("behaviour") == "no program":
            raise StartupError("the program is broken", 70)
        return run_master(settings, path, lambda: load_settings(path), run_stand_in, is_upgradable=True)
    except StartupError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1]))
