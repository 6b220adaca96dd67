"""The servers of a comparison: how each is started on a free port, ended, and what it calls itself.

Each takes all mail for any recipient and throws it away: at once, or (durable) after it is safely on disk. One that can't run
here says why in `missing`, and the comparison goes on without it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sqlite3
import subprocess
import sys
import urllib.request
from pathlib import Path

from bench.postfix_instance import PostfixInstance
from bench.processes import NotReadyError, await_greeting, end, free_port

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
_SBIN = "/usr/sbin:/usr/local/sbin:/sbin:/usr/bin:/usr/local/bin"


class Server:
    """One server. `weight` is its share of a load's mails, so that slow ones don't take the whole time of a round.

    `most_sessions` is how many it is driven with at once; `mails_per_commit` is set where it is known beforehand.
    """

    name = ""
    is_durable = False
    weight = 1.0
    most_sessions = 10_000
    mails_per_commit: float | None = None

    def __init__(self, folder: Path) -> None:
        self.folder = folder / self.name
        self.folder.mkdir()
        self.host = HOST
        self.port = free_port(HOST)
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None

    def missing(self) -> str:
        """Return why this server can't run here, "" when it can."""
        return ""

    def version(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        """Return the command line that serves on `host`:`port` in the foreground."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Return what it needs in its environment besides this process's own."""
        return {}

    def commits(self) -> int | None:
        """Return how many commits to the disk it has made so far, None when it doesn't tell."""
        return None

    def start(self) -> None:
        """Start the server and return when it greets; NotReadyError with the last line of its output when it doesn't."""
        with (self.folder / "output.log").open("wb") as output:
            self._process = process = subprocess.Popen(
                self.command(),
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupt at the terminal is for the benchmark, which then ends its servers
            )
        self.pid = process.pid
        try:
            await_greeting(self.host, self.port, lambda: process.poll() is None)
        except NotReadyError as error:
            self.stop()
            words = self.last_words()
            raise NotReadyError(f"{error}: {words}" if words else str(error)) from None

    def last_words(self) -> str:
        """Return the last line that the server wrote to stdout or stderr, "" when there is none."""
        log = self.folder / "output.log"
        return log.read_text(errors="replace").strip().rpartition("\n")[2][-300:] if log.exists() else ""

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


class Floor(Server):
    """The C server that answers without looking."""

    name = "floor"
    _source = ROOT / "bench" / "floor" / "floor.c"

    def missing(self) -> str:
        return "" if shutil.which("cc") else "no C compiler (cc)"

    def version(self) -> str:
        return "bench/floor/floor.c"

    def command(self) -> list[str]:
        program = self.folder / "floor"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", program, self._source], check=True)
        return [str(program), self.host, str(self.port)]


class SmtpSink(Server):
    """Postfix's own sink: a single C process."""

    name = "smtp-sink"
    weight = 0.7
    _program = shutil.which("smtp-sink", path=_SBIN)

    def missing(self) -> str:
        return "" if self._program else "smtp-sink is not installed (it is part of Postfix)"

    def version(self) -> str:
        return postfix_version()

    def command(self) -> list[str]:
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [str(self._program), *as_nobody, "-m", "20000", f"{self.host}:{self.port}", "4096"]


class SmtpdServer(Server):
    """What the two modes of this project's server have in common."""

    workers = 1
    program = Path(sys.executable).with_name("smtpd")

    def missing(self) -> str:
        return "" if self.program.exists() else f"{self.program} is not there (make build)"

    def version(self) -> str:
        numbers = f"{importlib.metadata.version('smtpd')}, Python {platform.python_version()}"
        return f"{numbers}, SQLite {sqlite3.sqlite_version}, {self.workers} worker(s)"


class SmtpdSink(SmtpdServer):
    """`smtpd sink`: no policy, no spool."""

    name = "smtpd sink"

    def command(self) -> list[str]:
        where = ["--listen", f"{self.host}:{self.port}"]
        return [str(self.program), "sink", *where, "--workers", str(self.workers)]


class SmtpdServe(SmtpdServer):
    """`smtpd serve`: custody in SQLite with synchronous=FULL before each 250, then a route that discards.

    `workers`, `route` and `first_tables` (whole tables of TOML before it) may be set on an instance before it starts.
    """

    name = "smtpd serve"
    is_durable = True
    weight = 0.4
    route = 'transport = "discard"'
    first_tables = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config = self.folder / "smtpd.toml"
        self.metrics_port = free_port(self.host)

    def command(self) -> list[str]:
        self.config.write_text(
            f'hostname = "bench.example.net"\n'
            f"workers = {self.workers}\n"
            f'run_dir = "{self.folder}/run"\n\n'
            f'[[listener]]\nname = "mx"\naddress = "{self.host}:{self.port}"\n\n'
            f'[spool]\npath = "{self.folder}/spool"\n\n'
            f'{self.first_tables}\n[[route]]\ndomains = ["*"]\n{self.route}\n\n'
            f'[metrics]\naddress = "{self.host}:{self.metrics_port}"\n\n'
            f'[log]\ndestination = "{self.folder}/mail.log"\n'
        )
        return [str(self.program), "serve", "-c", str(self.config)]

    def commits(self) -> int | None:
        return round(self.metric("smtpd_spool_commit_seconds_count"))

    def metric(self, name: str) -> float:
        """Return the sum of a metric's series on /metrics, 0 when it isn't there."""
        with urllib.request.urlopen(f"http://{self.host}:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0].partition(" ")[0] == name)


class Postfix(Server):
    """A private Postfix that accepts durably and hands all mail to its discard transport."""

    name = "postfix"
    is_durable = True
    weight = 0.06
    most_sessions = 150  # it has a process for each, 200 at most
    mails_per_commit = 1.0  # cleanup's fsync of the queue file

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._instance = PostfixInstance(self.folder, self.host, self.port)

    def missing(self) -> str:
        return PostfixInstance.missing()

    def version(self) -> str:
        return postfix_version()

    def start(self) -> None:
        self.pid = self._instance.start()

    def stop(self) -> None:
        self._instance.stop()


def postfix_version() -> str:
    """Return Postfix's version number, "" when postconf is not there."""
    program = shutil.which("postconf", path=_SBIN)
    if program is None:
        return ""
    answer = subprocess.run([program, "-dh", "mail_version"], capture_output=True, text=True, check=False)
    return answer.stdout.strip()
