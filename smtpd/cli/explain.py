"""`smtpd explain`: what each check says of a mail that might come, and its route. Exit codes: 0 = it is taken, 1 = not."""

from __future__ import annotations

import dataclasses
import sys

import click
import msgspec

from smtpd.cli.queue.frame import safe
from smtpd.config import load_settings
from smtpd.settings import ListenerSettings, Settings
from smtpd.worker.explaining import Asking, Explanation, explain


@click.command("explain")
@click.argument("address")
@click.option("-c", "config_path", metavar="FILE", type=click.Path(), help="The configuration file.")
@click.option("--client", default="127.0.0.1", metavar="IP", show_default=True, help="Address of the client.")
@click.option("--client-name", default="unknown", metavar="NAME", help="Its verified name.")
@click.option("--sender", default="", metavar="ADDRESS", help="Reverse-path; without it the null one.")
@click.option("--helo", default="", metavar="NAME", help="What the client says in EHLO; without it its address.")
@click.option("--listener", "listener_name", default="", metavar="NAME", help="Which listener; without it the first.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def explain_command(
    address: str,
    config_path: str | None,
    client: str,
    client_name: str,
    sender: str,
    helo: str,
    listener_name: str,
    as_json: bool,
) -> None:
    """Show what each check says of a mail to ADDRESS, and the route it would take. Nothing is sent; checks are really asked."""
    settings = load_settings(config_path)
    listener = _listener(settings, listener_name)
    name = helo or (f"[IPv6:{client}]" if ":" in client else f"[{client}]")
    for value in (address, client, sender, name):
        if any(not character.isprintable() for character in value):
            raise click.BadParameter("control characters have no place in a command")
    found = explain(settings, listener, Asking(address, client, sender.strip("<>"), name, client_name))
    if as_json:
        data = {"address": address, "client": client, "sender": sender, **dataclasses.asdict(found)}
        data["replies"] = [{"stage": stage, "reply": reply} for stage, reply in found.replies]
        sys.stdout.buffer.write(msgspec.json.encode(data) + b"\n")
        sys.stdout.buffer.flush()
    else:
        click.echo("\n".join(_lines(found)))
    sys.exit(0 if found.is_accepted else 1)


def _listener(settings: Settings, name: str) -> ListenerSettings:
    for listener in settings.listener:
        if not name or listener.name == name:
            return listener
    raise click.BadParameter(f"there is no listener {name!r}", param_hint="--listener")


def _lines(found: Explanation) -> list[str]:
    lines = []
    for stage, reply in found.replies:
        for row in found.rows:
            if row.stage == stage:
                dry = " (dry run)" if row.dry_run else ""
                lines.append(safe(f"{stage:8}{row.check}: {row.result}{dry}, {row.milliseconds:.1f} ms  {row.verdict}".rstrip()))
        lines.append(safe(f"{stage:8}-> {reply.splitlines()[-1] if reply else ''}"))
    hops = f" {', '.join(found.next_hop)}" if found.next_hop else ""
    lines.append(safe(f"route   {found.route}: {found.transport}{hops}" if found.route else "route   none"))
    return lines
