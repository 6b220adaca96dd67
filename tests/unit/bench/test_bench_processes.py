"""bench.processes: CPU of a whole tree, memory peaks, the time to a greeting, ends of what was started."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from bench import processes

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"


def run_python(source: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def await_word(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def finish(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def test_cpu_counts_the_process_its_threads_and_its_reaped_children() -> None:
    child = BURN.format(seconds=0.2)
    process = run_python(
        "import subprocess, sys, threading, time\n"
        "def burn():\n"
        "    while time.thread_time() < 0.2: pass\n"
        f"subprocess.run([sys.executable, '-S', '-c', {child!r}])\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        "print('done', flush=True); sys.stdin.read()\n"
    )
    try:
        await_word(process, b"done")
        assert processes.tree_cpu_ns(process.pid) > 0.38e9  # an ended thread and a reaped child: 0.2 s each
    finally:
        finish(process)


def test_cpu_counts_a_living_grandchild() -> None:
    grandchild = BURN.format(seconds=0.2) + "print('done', flush=True); import sys; sys.stdin.read()\n"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {grandchild!r}])\n"
    process = run_python(f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])\n")
    try:
        await_word(process, b"done")
        assert len(processes.tree_pids(process.pid)) == 3
        assert processes.tree_cpu_ns(process.pid) > 0.2e9
    finally:
        for pid in reversed(processes.tree_pids(process.pid)):
            os.kill(pid, 9)
        process.communicate()


def test_a_process_that_is_gone_has_no_cpu() -> None:
    process = run_python("")
    process.communicate()
    assert processes.tree_cpu_ns(process.pid) == 0
    assert not processes.is_alive(process.pid)


def test_quiet_is_told_from_busy() -> None:
    idle, busy = run_python("import sys; sys.stdin.read()"), run_python("while True: pass")
    try:
        assert processes.await_quiet(idle.pid, window_s=0.1, busy_share=0.3, timeout_s=10)
        assert not processes.await_quiet(busy.pid, window_s=0.05, busy_share=0.0, timeout_s=0.2)
    finally:
        finish(idle)
        finish(busy)


def test_peak_memory_starts_anew_after_a_reset() -> None:
    process = run_python(
        "import sys\n"
        "block = bytearray(64 << 20); del block; print('first', flush=True)\n"
        "sys.stdin.readline(); block = bytearray(16 << 20); del block; print('second', flush=True)\n"
        "sys.stdin.read()\n"
    )
    assert process.stdin is not None
    try:
        await_word(process, b"first")
        before = processes.memory_bytes(process.pid, "VmRSS")
        assert processes.memory_bytes(process.pid, "VmHWM") > before + (50 << 20)
        processes.reset_peak(process.pid)
        process.stdin.write(b"\n")
        process.stdin.flush()
        await_word(process, b"second")
        growth = processes.memory_bytes(process.pid, "VmHWM") - before
        assert 10 << 20 < growth < 30 << 20
        assert 0 < processes.proportional_bytes(process.pid) < 1 << 30
    finally:
        finish(process)


def serve_once(*replies: bytes) -> tuple[str, int, threading.Thread]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener:
            for reply in replies:
                client, _ = listener.accept()
                with client:
                    client.sendall(reply)
                    if reply:
                        client.recv(100)

    thread = threading.Thread(target=serve)
    thread.start()
    host, port = listener.getsockname()
    return host, port, thread


def test_a_greeting_is_timed() -> None:
    host, port, thread = serve_once(b"220 hello\r\n")
    started = time.perf_counter()
    assert 0 < processes.greeting_s(host, port) <= time.perf_counter() - started
    thread.join()


@pytest.mark.parametrize("reply", [b"421 4.3.2 go away\r\n", b""])
def test_a_refusal_is_no_greeting(reply: bytes) -> None:
    host, port, thread = serve_once(reply)
    with pytest.raises(OSError):  # noqa: PT011, which one depends on how it is refused
        processes.greeting_s(host, port)
    thread.join()


def test_waiting_for_a_greeting_ends_with_the_server() -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        host, port = unheard.getsockname()
        with pytest.raises(processes.NotReadyError, match="ended before"):
            processes.await_greeting(host, port, lambda: False)
        with pytest.raises(processes.NotReadyError, match="no greeting"):
            processes.await_greeting(host, port, lambda: True, timeout_s=0.1)


def test_ending_kills_what_ignores_term() -> None:
    process = run_python(
        "import signal, sys\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\nsys.stdin.read()\n"
    )
    await_word(process, b"up")
    processes.end(process, timeout_s=0.2)
    assert process.returncode == -9
    processes.end(process)  # ended already: nothing to do
    process.communicate()
