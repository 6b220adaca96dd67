"""`smtpd sink`: take mail and throw it away, as a target for people who test senders."""

from __future__ import annotations

import socket
import sys
import tempfile

import click

from smtpd.config.units import parse_size
from smtpd.net.listeners import ListenerSockets


@click.command("sink")
@click.option(
    "--listen", multiple=True, default=("127.0.0.1:2525",), show_default=True, metavar="ADDRESS", help="May be repeated."
)
@click.option("--workers", default=1, show_default=True, type=click.IntRange(0, 256), help="0 = one per core.")
@click.option("--metrics", default="", metavar="ADDRESS", help="Serve /metrics there, e.g. 127.0.0.1:9025. Off by default.")
@click.option("--message-size", default="0", show_default=True, metavar="SIZE", help="Refuse larger mails; 0 = no limit.")
@click.option("--hostname", default="", help="In greeting and EHLO; the machine's by default.")
@click.option("-v", "--verbose", is_flag=True, help="Log each connection and mail to stderr.")
def sink_command(listen: tuple[str, ...], workers: int, metrics: str, message_size: str, hostname: str, verbose: bool) -> None:
    """Take every mail and discard it: a benchmark target for senders."""
    from smtpd.master.start import run_master
    from smtpd.sink.target import sink_settings
    from smtpd.worker.main import run_worker

    try:
        size = parse_size(message_size)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--message-size") from None
    with tempfile.TemporaryDirectory(prefix="smtpd-sink-") as run_dir:
        settings = sink_settings(listen, workers, metrics, run_dir, hostname or socket.gethostname(), verbose, size)
        code = run_master(settings, "sink", lambda: settings, run_worker, lambda listeners, _: _announce(listeners))
    sys.exit(code)


def _announce(listeners: list[ListenerSockets]) -> None:
    addresses = ", ".join(listener.label for listener in listeners)
    click.echo(f"smtpd sink: discarding all mail on {addresses}", err=True)
