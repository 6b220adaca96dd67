"""Real filters for tests: rspamd, OpenDKIM, postgrey and policyd-spf, each in a directory of the test and on loopback alone.

Each is a context manager that yields its address once it answers, and ends what it started. None asks a name server but the
test's own.
"""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gateway import free_port, wait_until
from peers import require_peer

HOST = "127.0.0.1"
# What rspamd takes for its test patterns, by the action that it answers.
GTUBE = {
    action: f"{letter}JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
    for action, letter in (("reject", "X"), ("add header", "Y"), ("rewrite subject", "Z"))
}

_RSPAMD = """
options {{
  pidfile = "{folder}/rspamd.pid"; tempdir = "{folder}"; hs_cache_dir = "{folder}"; history_file = "{folder}/history";
  cache_file = "{folder}/symbols.cache"; control_socket = "{folder}/control.sock mode=0600";
  url_tld = "{folder}/tld"; filters = ""; enable_test_patterns = true; disable_monitoring = true; local_addrs = [];
  dns {{ nameserver = ["127.0.0.1:{nowhere}"]; timeout = 0.1s; retransmits = 1; }}
}}
logging {{ type = "file"; filename = "{folder}/rspamd.log"; level = "info"; }}
actions {{ reject = 15; add_header = 6; greylist = 4; rewrite_subject = 8; }}
worker "normal" {{ bind_socket = "{host}:{http}"; count = 1; }}
worker "rspamd_proxy" {{
  bind_socket = "{host}:{milter}"; count = 1; milter = yes; timeout = 20s;
  upstream "local" {{ self_scan = yes; default = yes; }}
}}
lua = "{folder}/rules.lua";
"""
# A rule of the test's: says what it knows of the mail in a header field, and takes another one off.
_RULES = """
rspamd_config:register_symbol({
  name = "TOLD", type = "postfilter",
  callback = function(task)
    local from, to = task:get_from("smtp"), task:get_recipients("smtp")
    local names = {}
    for _, one in ipairs(to or {}) do table.insert(names, one.addr) end
    local told = string.format("%s %s %s %s %s", task:get_ip() or "-", task:get_helo() or "-",
      (from and from[1] and from[1].addr) or "-", table.concat(names, ","), task:get_queue_id() or "-")
    task:set_milter_reply({ add_headers = { ["X-Told"] = told }, remove_headers = { ["X-Gone"] = 0 } })
  end
})
"""


@contextmanager
def running(arguments: Sequence[str], log: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that listens at `address` ("host:port"); ended by TERM."""
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=log.parent)
    try:

        def is_there() -> bool:
            assert process.poll() is None, f"{arguments[0]} ended: {log.read_text(errors='replace')[-2000:]}"
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), 5).close()
            except OSError:
                return False
            return True

        wait_until(f"{arguments[0]} listens", is_there, 60)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running_rspamd(folder: Path) -> Iterator[tuple[str, str]]:
    """rspamd with a rule of the test's: yields the addresses of its HTTP and of its milter."""
    program = require_peer("rspamd", "rspamd")
    folder.mkdir(parents=True, exist_ok=True)
    http, milter, nowhere = (free_port(HOST) for _ in range(3))
    (folder / "tld").write_text("org\nnet\n")
    (folder / "rules.lua").write_text(_RULES)
    config = folder / "rspamd.conf"
    config.write_text(_RSPAMD.format(folder=folder, host=HOST, http=http, milter=milter, nowhere=nowhere))
    as_root = ["-i", "-u", "root", "-g", "root"] if os.geteuid() == 0 else []
    with running([program, "-f", "-c", str(config), *as_root], folder / "output.log", f"{HOST}:{milter}"):

        def is_ready() -> bool:
            try:
                with socket.create_connection((HOST, http), 5) as sock:
                    sock.sendall(b"GET /ping HTTP/1.0\r\n\r\n")
                    return sock.recv(100).startswith(b"HTTP/1.")
            except OSError:
                return False

        wait_until("rspamd answers", is_ready, 60)
        yield f"{HOST}:{http}", f"{HOST}:{milter}"


@contextmanager
def running_opendkim(folder: Path, public_key: bytes) -> Iterator[str]:
    """OpenDKIM verifying, with the key (DER) of selector s of example.org; refuses bad signatures."""
    program = require_peer("opendkim", "opendkim")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(HOST)
    (folder / "keys").write_text(f"s._domainkey.example.org v=DKIM1; k=rsa; p={base64.b64encode(public_key).decode()}\n")
    config = folder / "opendkim.conf"
    config.write_text(
        f"Mode v\nSocket inet:{port}@{HOST}\nSyslog no\nTestPublicKeys {folder}/keys\nAuthservID mx.example.net\n"
        f"AlwaysAddARHeader yes\nOn-BadSignature reject\nRequireSafeKeys no\nPidFile {folder}/opendkim.pid\n"
        "TrustAnchorFile /dev/null\n"
    )
    with running([program, "-f", "-x", str(config)], folder / "output.log", f"{HOST}:{port}"):
        yield f"{HOST}:{port}"


@contextmanager
def running_postgrey(folder: Path) -> Iterator[str]:
    """postgrey with a delay of one second."""
    program = require_peer("postgrey", "postgrey")
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("clients", "recipients"):
        (folder / name).write_text("")
    port = free_port(HOST)
    owner = ["--user=root", "--group=root"] if os.geteuid() == 0 else [f"--user={os.geteuid()}", f"--group={os.getegid()}"]
    arguments = [
        program, f"--inet={HOST}:{port}", f"--dbdir={folder}", "--delay=1", f"--whitelist-clients={folder}/clients",
        f"--whitelist-recipients={folder}/recipients", *owner,
    ]  # fmt: skip
    with running(arguments, folder / "output.log", f"{HOST}:{port}"):
        yield f"{HOST}:{port}"


_POLICYD_SPF = """
import sys
sys.path.insert(0, "/usr/lib/python3/dist-packages")
import DNS
DNS.DiscoverNameServers = lambda: None
DNS.defaults["server"], DNS.defaults["port"] = ["{host}"], {port}
sys.argv = ["policyd-spf", "{config}"]
from spf_engine.policyd_spf import main
main()
"""


@contextmanager
def running_policyd_spf(folder: Path, name_server: str) -> Iterator[str]:
    """policyd-spf, a process for each connection as Postfix's spawn(8) has it, with the test's name server."""
    require_peer("postfix-policyd-spf-python", "policyd-spf")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "policyd-spf.conf"
    config.write_text("debugLevel = 0\nHELO_reject = Fail\nMail_From_reject = Fail\nskip_addresses = 127.0.0.0/8\n")
    host, _, port = name_server.rpartition(":")
    script = _POLICYD_SPF.format(host=host, port=port, config=config)
    server = socket.create_server((HOST, 0))
    processes: list[subprocess.Popen[bytes]] = []

    def serve() -> None:
        while True:
            connection, _ = server.accept()
            with connection, (folder / "output.log").open("ab") as log:
                if is_over.is_set():
                    return
                processes.append(
                    subprocess.Popen(["/usr/bin/python3", "-c", script], stdin=connection, stdout=connection, stderr=log)
                )

    is_over = threading.Event()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"{HOST}:{server.getsockname()[1]}"
    finally:
        is_over.set()
        socket.create_connection(server.getsockname(), 5).close()
        thread.join(10)
        server.close()
        for process in processes:
            process.terminate()
            process.wait(20)
