"""`smtpd transcript`: the dialogues with some clients or a next hop, live from all workers, until Ctrl-C or for some seconds.

The octets of mails are counted, not shown, credentials hidden. Exit codes: 0, 69 without a running server, 75 as `smtpd queue`.
"""

from __future__ import annotations

import os
import sys
import time

import click
import msgspec

from smtpd.cli.queue.frame import complain, config_option, end, json_option, load, print_object, quits_quietly, safe
from smtpd.control.listening import TranscriptReader
from smtpd.control.transcript import read_network
from smtpd.control.wire import Line, Request, Said


def _check_network(ctx: click.Context, param: click.Parameter, value: str) -> str:
    try:
        return str(read_network(value)) if value else ""
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command("transcript")
@config_option
@json_option("One JSON object a line.")
@click.option("--client", default="", metavar="NETWORK", callback=_check_network, help='Clients: "192.0.2.1", "2001:db8::/32".')
@click.option("--next-hop", default="", metavar="HOST", help='A next hop: its name or address, with or without ":port".')
@click.option("--seconds", default=0.0, type=click.FloatRange(0.0), help="Stop after so long; 0: at Ctrl-C.")
@quits_quietly
def transcript_command(config_path: str | None, as_json: bool, client: str, next_hop: str, seconds: float) -> None:
    """Watch the dialogue with clients or with a next hop, line by line.

    Sessions that are open already are shown from their next reply on. A reader that is too slow is told how many lines
    it missed."""
    if bool(client) == bool(next_hop):
        raise click.UsageError("either --client or --next-hop, please")
    reader = TranscriptReader(load(config_path).run_dir)
    try:
        for line in reader.follow(Request("transcript", client=client, next_hop=next_hop, seconds=seconds)):
            _show(line, as_json)
    except KeyboardInterrupt:
        pass
    finally:
        reader.close()
    end(reader)
    if not reader.asked:
        complain("no worker is running")
        sys.exit(os.EX_UNAVAILABLE)


def _show(line: Line, as_json: bool) -> None:
    if line.said is not None:
        if as_json:
            print_object(msgspec.to_builtins(line.said))
        else:
            print(_text_of(line.said))
    elif line.lost:
        if as_json:
            print_object({"lost": line.lost})
        else:
            print(f"... {line.lost} lines lost: this reader is too slow")
    sys.stdout.flush()


def _text_of(said: Said) -> str:
    at = time.strftime("%H:%M:%S", time.localtime(said.at_s)) + f".{int(said.at_s % 1 * 1000):03d}"
    return f"{at} {said.session} {safe(said.peer)} {said.who + ':' if said.who else '--'} {safe(said.text)}"
