"""A private Postfix in a folder of its own: durable accept, by default a discard transport, nothing shared with the machine's.

Configuration, queue and data directories all lie in the given folder; /etc/postfix is only read (Postfix's list of its own
files is there). Started and stopped by `postfix -c`; needs root, as Postfix's master does.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from bench.processes import NotReadyError, await_greeting, is_alive

_PROGRAM = shutil.which("postfix", path="/usr/sbin:/usr/local/sbin:/sbin")
_STOP_TIMEOUT_S = 20.0

_MAIN_CF = {
    "compatibility_level": "3.6",
    "config_directory": "{folder}/etc",
    "queue_directory": "{folder}/queue",
    "data_directory": "{folder}/data",
    "syslog_name": "smtpd-bench",
    "myhostname": "bench.example.net",
    "mydestination": "",
    "local_recipient_maps": "",
    "alias_maps": "",
    "alias_database": "",
    "mynetworks": "127.0.0.0/8",
    "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
    "inet_interfaces": "{host}",
    "inet_protocols": "ipv4",
    "default_transport": "discard:",
    "smtpd_client_connection_count_limit": "0",
    "default_process_limit": "200",
    "in_flow_delay": "0",
    "message_size_limit": "104857600",
    "mailbox_size_limit": "0",
}

_MASTER_CF = """\
# service type private unpriv chroot wakeup maxproc command
{host}:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
"""


class PostfixInstance:
    """One instance; `folder` must be reachable for the user postfix. `parameters` replace or add some of main.cf."""

    def __init__(self, folder: Path, host: str, port: int, parameters: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._parameters = {**_MAIN_CF, **(parameters or {})}
        self._host = host
        self._port = port
        self._pid = 0

    @staticmethod
    def missing() -> str:
        """Return why no instance can run here, "" when one can."""
        if _PROGRAM is None:
            return "Postfix is not installed"
        if os.geteuid() != 0:
            return "Postfix needs root to start"
        try:
            pwd.getpwnam("postfix")
        except KeyError:
            return "there is no user postfix"
        return ""

    def start(self) -> int:
        """Start it and return the pid of its master once it greets; NotReadyError when it doesn't."""
        names = {"folder": self._folder, "host": self._host, "port": self._port}
        etc = self._folder / "etc"
        for name in ("etc", "queue", "data"):
            (self._folder / name).mkdir()
        shutil.chown(self._folder / "data", "postfix")
        main_cf = (f"{name} = {value.format(**names)}\n" for name, value in self._parameters.items())
        (etc / "main.cf").write_text("".join(main_cf))
        (etc / "master.cf").write_text(_MASTER_CF.format(**names))
        self._run("start")
        pid = self._pid = int((self._folder / "queue" / "pid" / "master.pid").read_text())
        try:
            await_greeting(self._host, self._port, lambda: is_alive(pid))
        except NotReadyError:
            self.stop()
            raise
        return pid

    def stop(self) -> None:
        """Stop it and return when its master is gone."""
        if not self._pid or not is_alive(self._pid):
            return
        self._run("stop")
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        while is_alive(self._pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        if is_alive(self._pid):
            self._run("abort")

    def _run(self, action: str) -> None:
        command = [str(_PROGRAM), "-c", str(self._folder / "etc"), action]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if result.returncode:
            words = (result.stderr + result.stdout).strip()[-500:]
            raise NotReadyError(f"postfix {action} failed: {words or result.returncode}")
