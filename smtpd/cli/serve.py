"""`smtpd serve`: load the configuration, start the master, tell a newcomer what to do next."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import sys

import click

from smtpd import __version__
from smtpd.settings import RouteSettings, Settings


@click.command("serve")
@click.option("-c", "path", metavar="FILE", help="Configuration; default /etc/smtpd/smtpd.toml.")
@click.option("-t", "--test", "is_test", is_flag=True, help="Only check the configuration, like `smtpd check`.")
def serve_command(path: str | None, is_test: bool) -> int:
    """Take mail in and deliver it until stopped.

    Without a file, listens on 127.0.0.1:2525 and files mail for any domain under ./var/mail. Signals: HUP
    reloads, TERM stops gracefully, INT and QUIT fast, USR1 reopens logs, USR2 starts the program anew with the
    sockets handed over, TTIN and TTOU add and retire a worker.
    """
    if is_test:
        from smtpd.cli.check import run_check

        return run_check(path, as_json=False)
    from smtpd.config.load import load_settings, settings_file
    from smtpd.master.inheritance import telling_predecessor

    with telling_predecessor():
        settings = load_settings(path)
    file = settings_file(path) or ""

    from smtpd.master.start import run_master
    from smtpd.net.listeners import ListenerSockets, format_address
    from smtpd.worker.main import run_worker  # before the fork: the workers share its memory

    def tell(listeners: list[ListenerSockets], metrics: socket.socket | None) -> None:
        if not file or sys.stdout.isatty():
            addresses = [listener.label for listener in listeners]
            text = guide(settings, file, addresses, format_address(metrics) if metrics else "")
            with contextlib.suppress(OSError):  # nobody reads it: no reason not to serve
                print(text, flush=True)

    absolute = os.path.abspath(file) if file else ""
    return run_master(settings, absolute, lambda: load_settings(path), run_worker, tell, is_upgradable=True)


def guide(settings: Settings, file: str, addresses: list[str], metrics: str) -> str:
    """What a newcomer wants to know: where it listens, a first mail, where that will be, the metrics.

    `file` is "" for the embedded default.
    """
    domains = settings.policy.relay_domains
    lines = [f"smtpd {__version__} listens on {', '.join(addresses)} ({file or 'the embedded default'})"]
    host, _, port = next((a for a in addresses if not a.startswith("unix:")), "").rpartition(":")
    if host and domains != []:
        domain = domains[0] if domains else "example.org"
        code = (
            f'import smtplib; s = smtplib.SMTP("{host.strip("[]")}", {port}); '
            f's.sendmail("me@example.com", "you@{domain}", "Subject: hello\\n\\nIt works.\\n"); s.quit()'
        )
        lines += ["Send a first mail:", f"  python3 -c {shlex.quote(code)}"]
        route = find_route(settings.route, domain)
        if route is not None and route.transport == "maildir":
            lines.append(f"It will be in {os.path.join(route.path, domain, 'you', 'new')}/")
    if metrics:
        lines.append(f"Metrics: http://{metrics}/metrics")
    lines.append("Stop with Ctrl-C.")
    return "\n".join(lines)


def find_route(routes: list[RouteSettings], domain: str) -> RouteSettings | None:
    """The first route that names the domain, one of its parents by ".parent", or "*"."""
    parents = {"*", domain, *("." + domain.split(".", n)[n] for n in range(1, domain.count(".") + 1))}
    return next((route for route in routes if parents.intersection(route.domains)), None)
