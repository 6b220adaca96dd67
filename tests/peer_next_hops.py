"""Real mail servers that tests relay to, each in a folder of its own: Postfix, Dovecot's LMTP, Postfix's smtp-sink.

Owns the processes from start to end, on ports of this test process alone. Nothing of the machine's own servers is touched. The
folder is below the system's temporary one and open to all, since these servers run as other users and like short paths.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateway import free_port, own_loopback_address, wait_until
from peers import require_peer
from relayed_mail import maildir_contents

from bench.postfix_instance import PostfixInstance
from bench.processes import await_greeting, end
from bench.results import scratch_folder

_NOBODY = 65534


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder for a server; removed at the end."""
    with scratch_folder(tempfile.gettempdir()) as folder:
        yield folder


def _require_root(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"{name} needs root to start")


def _unlink_mails(folder: Path) -> None:
    for path in folder.rglob("new/*"):
        path.unlink()


class PostfixReceiver:
    """A running Postfix that files mail for example.org into one Maildir."""

    def __init__(self, folder: Path, **parameters: str) -> None:
        self.host = own_loopback_address()
        self.port = free_port(self.host)
        self.mail = folder / "mail"
        self.mail.mkdir()
        os.chown(self.mail, _NOBODY, _NOBODY)
        settings = {
            "virtual_mailbox_domains": "example.org",
            "virtual_mailbox_base": str(self.mail),
            "virtual_mailbox_maps": "static:box/",
            "virtual_uid_maps": f"static:{_NOBODY}",
            "virtual_gid_maps": f"static:{_NOBODY}",
            "virtual_minimum_uid": "1",
            "virtual_mailbox_limit": "0",
            "message_size_limit": "0",
            "inet_interfaces": "127.0.0.1",  # what it takes for its own; the port it listens on is in master.cf
            "local_header_rewrite_clients": "",
            **parameters,
        }
        (folder / "postfix").mkdir()
        self._instance = PostfixInstance(folder / "postfix", self.host, self.port, settings)

    @property
    def next_hop(self) -> str:
        return f"{self.host}:{self.port}"

    def clear(self) -> None:
        """Forget all mail that has arrived."""
        _unlink_mails(self.mail)

    def arrived(self) -> list[bytes]:
        return maildir_contents(self.mail)

    def await_arrived(self, count: int, timeout_s: float = 60.0) -> list[bytes]:
        """Return all mails once there are so many: Postfix files them after its reply."""
        wait_until(f"Postfix has filed {count} mails", lambda: len(list(self.mail.glob("box/new/*"))) >= count, timeout_s)
        return self.arrived()


@contextmanager
def postfix_receiver(**parameters: str) -> Iterator[PostfixReceiver]:
    """A started PostfixReceiver; `parameters` are of main.cf."""
    require_peer("postfix", "postfix")
    _require_root("Postfix")
    with server_folder() as folder:
        receiver = PostfixReceiver(folder, **parameters)
        receiver._instance.start()
        try:
            yield receiver
        finally:
            receiver._instance.stop()


_DOVECOT_CONF = """\
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/dovecot.log
protocols = lmtp
ssl = no
mail_location = maildir:~/Maildir
mail_fsync = never
first_valid_uid = 1
auth_username_format = %Lu
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
service lmtp {{
  process_min_avail = 2
  unix_listener {folder}/lmtp {{
    mode = 0666
  }}
  inet_listener lmtp {{
    address = {host}
    port = {port}
  }}
}}
protocol lmtp {{
  postmaster_address = postmaster@example.net
}}
"""


class DovecotStore:
    """A running Dovecot that takes LMTP on a socket and a port; its users are those given."""

    def __init__(self, folder: Path, users: list[str]) -> None:
        self.folder = folder
        self.host = own_loopback_address()
        self.port = free_port(self.host)
        self.socket = folder / "lmtp"
        self._program = require_peer("dovecot-core", "dovecot")
        names = {"folder": folder, "host": self.host, "port": self.port}
        (folder / "dovecot.conf").write_text(_DOVECOT_CONF.format(**names))
        (folder / "users").write_text("".join(f"{user}:{{PLAIN}}x:{_NOBODY}:{_NOBODY}::{folder}/home/{user}\n" for user in users))
        (folder / "home").mkdir()
        os.chown(folder / "home", _NOBODY, _NOBODY)

    def start(self) -> None:
        with (self.folder / "output.log").open("wb") as output:
            self._process = subprocess.Popen(
                [self._program, "-F", "-c", self.folder / "dovecot.conf"], stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        await_greeting(self.host, self.port, lambda: self._process.poll() is None)

    def stop(self) -> None:
        end(self._process)

    def clear(self) -> None:
        """Forget all mail that has arrived."""
        _unlink_mails(self.folder / "home")

    def mailbox(self, user: str) -> list[bytes]:
        return maildir_contents(self.folder / "home" / user / "Maildir")


@contextmanager
def dovecot_store(*users: str) -> Iterator[DovecotStore]:
    """A started DovecotStore."""
    require_peer("dovecot-lmtpd", "/usr/lib/dovecot/lmtp")
    _require_root("Dovecot")
    with server_folder() as folder:
        store = DovecotStore(folder, list(users))
        store.start()
        try:
            yield store
        finally:
            store.stop()


class SinkHop:
    """Postfix's smtp-sink on one port, which may be replaced by another with other options; keeps what each takes."""

    def __init__(self, folder: Path) -> None:
        self.host = own_loopback_address()
        self.port = free_port(self.host)
        self._mails = folder / "mails"
        self._mails.mkdir(mode=0o777)
        self._mails.chmod(0o777)
        self._program = require_peer("postfix", "smtp-sink")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def next_hop(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self, *options: str) -> None:
        """Start it, in place of the one that runs."""
        self.stop()
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        command = [self._program, *as_nobody, *options, "-d", f"{self._mails}/m.", self.next_hop, "200"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until("smtp-sink listens", self._is_listening, 20)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _is_listening(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((self.host, self.port)) == 0

    def stop(self) -> None:
        """End it at once, as if it crashed."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def clear(self) -> None:
        """Forget what it took."""
        for path in self._mails.iterdir():
            path.unlink()

    def dumps(self) -> list[bytes]:
        """Return what it wrote of each transaction: its own header lines, then the content."""
        return [path.read_bytes().removesuffix(b"\n") for path in self._mails.iterdir()]  # it ends each with an empty line


@contextmanager
def sink_hop(*options: str) -> Iterator[SinkHop]:
    """A SinkHop started with these options of smtp-sink."""
    with server_folder() as folder:
        sink = SinkHop(folder)
        sink.start(*options)
        try:
            yield sink
        finally:
            sink.stop()
