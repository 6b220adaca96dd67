"""What TLS costs: `python -m bench.tls`. CPU of the server per mail on kept connections, of a handshake, memory of idle sessions.

Sink and durable gateway, each without and with STARTTLS, one after the other in each round: `smtpd load` sends a fixed number of
4 KB mails over kept connections, and the cost is the growth of user + system time of the server's whole tree until it is quiet
again, by the mails. The handshakes of the sessions come with a run of few mails before, so they are in neither. Ratios are taken
within a round, then their median. A handshake is the same with a connection for each mail, less what that costs in the clear.
"""

from __future__ import annotations

import argparse
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.idle import open_session, read_reply
from bench.processes import await_quiet, child_pids, memory_bytes, tree_cpu_ns
from bench.results import end_in_order, markdown_table, raise_open_files, scratch_folder, write_result, write_section
from bench.servers import Server, SmtpdServe, SmtpdServer, SmtpdSink
from smtpd.net.tls.self_made import make_certificate

SESSIONS = 10
SIZE_BYTES = 4096
LARGE_BYTES = 200_000
GOALS = {"smtpd serve": 1.3, "smtpd sink": 1.6}  # per mail, of what it costs in the clear
IDLE_GOAL_BYTES = 25_000


class TlsSink(SmtpdSink):
    name = "smtpd sink, TLS"

    def command(self) -> list[str]:
        return [*super().command(), "--tls"]


class TlsServe(SmtpdServe):
    name = "smtpd serve, TLS"

    def command(self) -> list[str]:
        cert, key = make_certificate(str(self.folder), "bench.example.net")
        self.first_tables = f'[[tls.certificate]]\ncert = "{cert}"\nkey = "{key}"\n'
        command = super().command()
        text = self.config.read_text()
        self.config.write_text(text.replace('name = "mx"\n', 'name = "mx"\ntls = "starttls"\n', 1))
        return command


def send(server: Server, mails: int, *, has_tls: bool, keeps: bool = True) -> None:
    """Send so many mails; RuntimeError when not all were taken."""
    command = [
        str(SmtpdServer.program), "load", f"{server.host}:{server.port}", "-s", str(SESSIONS), "-m", str(mails), "-l",
        str(SIZE_BYTES), "-t", "bench@example.org", *(["-d"] if keeps else []), *(["--tls"] if has_tls else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"smtpd load ended with {done.returncode}: {done.stderr[-500:]}")


def cpu_us(server: Server, mails: int, *, has_tls: bool, keeps: bool = True) -> float:
    """The server's CPU per mail in microseconds; with kept connections without what opening them costs."""
    spent = []
    for count in (SESSIONS, mails + SESSIONS) if keeps else (mails,):
        await_quiet(server.pid)
        before = tree_cpu_ns(server.pid)
        send(server, count, has_tls=has_tls, keeps=keeps)
        await_quiet(server.pid)
        spent.append(tree_cpu_ns(server.pid) - before)
    return (spent[-1] - (spent[0] if keeps else 0)) / mails / 1000


def open_tls_session(host: str, port: int, context: ssl.SSLContext) -> socket.socket:
    """A session past STARTTLS and its second EHLO."""
    client = open_session(host, port)
    client.sendall(b"STARTTLS\r\n")
    read_reply(client)
    secured = context.wrap_socket(client)
    secured.sendall(b"EHLO idle.example.net\r\n")
    read_reply(secured)
    return secured


def send_content(client: socket.socket) -> None:
    """A mail of LARGE_BYTES on an open session."""
    for command in (b"MAIL FROM:<a@example.com>", b"RCPT TO:<b@example.org>", b"DATA"):
        client.sendall(command + b"\r\n")
        read_reply(client)
    client.sendall((b"X" * 78 + b"\r\n") * (LARGE_BYTES // 80) + b".\r\n")
    if not (reply := read_reply(client)).startswith(b"250"):
        raise RuntimeError(f"a mail was not taken: {reply!r}")


def idle_bytes(server: Server, sessions: int, has_tls: bool, sends: bool = False) -> int:
    """Growth of the worker's private memory by each session that says nothing after its EHLO, or with `sends` after a mail."""
    (worker,) = child_pids(server.pid)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    clients: list[socket.socket] = []

    def open_one() -> socket.socket:
        client = open_tls_session(server.host, server.port, context) if has_tls else open_session(server.host, server.port)
        if sends:
            send_content(client)
        return client

    try:
        for client in [open_one() for _ in range(20)]:
            client.close()
        await_quiet(server.pid)
        before = memory_bytes(worker, "RssAnon")
        for _ in range(sessions):
            clients.append(open_one())
        return round((memory_bytes(worker, "RssAnon") - before) / sessions)
    finally:
        for client in clients:
            client.close()


def measure(rounds: int, mails: int, handshakes: int, sessions: int, folder: Path) -> dict[str, Any]:
    """Run it; microseconds per mail and handshake, octets per idle session."""
    raise_open_files(sessions + 1000)
    kinds: dict[str, tuple[SmtpdServer, SmtpdServer]] = {
        "smtpd sink": (SmtpdSink(folder), TlsSink(folder)),
        "smtpd serve": (SmtpdServe(folder), TlsServe(folder)),
    }
    servers = [server for pair in kinds.values() for server in pair]
    records: list[dict[str, Any]] = []
    try:
        for server in servers:
            server.start()
        for server in servers:
            send(server, 500, has_tls=server.name.endswith("TLS"))
        for number in range(rounds):
            for name, (plain, secured) in kinds.items():
                in_clear, encrypted = cpu_us(plain, mails, has_tls=False), cpu_us(secured, mails, has_tls=True)
                record = {"round": number + 1, "server": name, "clear_us": in_clear, "tls_us": encrypted}
                if name == "smtpd sink":
                    record["connection_us"] = cpu_us(plain, handshakes, has_tls=False, keeps=False)
                    record["secured_connection_us"] = cpu_us(secured, handshakes, has_tls=True, keeps=False)
                records.append(record)
                print(f"round {number + 1}  {name:12} {in_clear:.1f} and {encrypted:.1f} µs a mail", file=sys.stderr)
        sink, tls_sink = kinds["smtpd sink"]
        idle = {"clear": idle_bytes(sink, sessions, False), "tls": idle_bytes(tls_sink, sessions, True)}
        for server in (sink, tls_sink):  # memory that the sessions before have left would hide what these need
            server.stop()
            server.start()
        idle |= {"clear_used": idle_bytes(sink, sessions, False, True), "tls_used": idle_bytes(tls_sink, sessions, True, True)}
    finally:
        for server in servers:
            server.stop()
    return {"rounds": records, "idle_bytes": idle, "summary": summarize(records)}


def summarize(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each server: medians over the rounds."""
    rows = []
    for name in dict.fromkeys(record["server"] for record in records):
        own = [record for record in records if record["server"] == name]
        row: dict[str, Any] = {"server": name, "ratio": round(median(one["tls_us"] / one["clear_us"] for one in own), 2)}
        row |= {key: round(median(one[key] for one in own), 1) for key in ("clear_us", "tls_us")}
        if "connection_us" in own[0]:
            row["handshake_us"] = round(median(one["secured_connection_us"] - one["connection_us"] for one in own))
        rows.append(row)
    return rows


def render(content: dict[str, Any]) -> str:
    rows = [
        [
            row["server"],
            f"{row['clear_us']:.1f}",
            f"{row['tls_us']:.1f}",
            f"{row['ratio']:.2f}",
            f"{GOALS[row['server']]:.1f}",
            f"{row['handshake_us']:,}" if "handshake_us" in row else "",
        ]
        for row in content["summary"]
    ]
    head = ["server", "µs a mail in the clear", "with TLS", "ratio", "goal", "µs a handshake"]
    idle = content["idle_bytes"]
    sessions = (
        f"An idle session: {idle['clear']:,} octets in the clear, {idle['tls']:,} with TLS; one that has sent a mail of 200 KB: "
        f"{idle['clear_used']:,} and {idle['tls_used']:,} (goal: {IDLE_GOAL_BYTES:,})."
    )
    return f"{markdown_table(head, rows)}\n{sessions}\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tls", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mails", type=int, default=5000, help="of each run (default: 5000)")
    parser.add_argument("--handshakes", type=int, default=500)
    parser.add_argument("--sessions", type=int, default=1000, help="idle ones (default: 1000)")
    parser.add_argument("--dir", default="/var/tmp", help="where the spools lie (default: /var/tmp)")
    parser.add_argument("--quick", action="store_true", help="one short round, nothing is written")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds, options.mails, options.handshakes, options.sessions = 1, 1000, 100, 100
    end_in_order()
    with scratch_folder(options.dir) as folder:
        content = measure(options.rounds, options.mails, options.handshakes, options.sessions, folder)
    print(render(content))
    if not options.quick:
        path = write_result("tls", content)
        write_section("tls", f"{render(content).strip()}\n\nFrom `results/{path.name}`.")
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
