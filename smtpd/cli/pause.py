"""`smtpd pause` and `smtpd resume`: take a running node out of service, and put it back.

Asks the master over its control socket; during an upgrade, whoever is in charge afterwards. Exit codes: 0, 69 without a running
server, 75 when it could not do it now.
"""

from __future__ import annotations

import os
import sys
import time

import click
import msgspec

from smtpd.cli.queue.frame import complain, config_option, json_option, load, print_object
from smtpd.control.client import connect
from smtpd.master.control import NAME, Standing

_PATIENCE_S = 120.0
_AGAIN_S = 0.2
_REPLACED_S = 3.0


@click.command("pause")
@config_option
@json_option()
def pause_command(config_path: str | None, as_json: bool) -> None:
    """Accept no new connections on this node, and say how many sessions are left.

    Who connects is refused, /readyz answers 503. Open sessions and deliveries go on. Lasts through reload and upgrade, until
    `smtpd resume` or a restart; may be repeated to see how many are left.
    """
    _ask("pause", config_path, as_json)


@click.command("resume")
@config_option
@json_option()
def resume_command(config_path: str | None, as_json: bool) -> None:
    """Accept connections again."""
    _ask("resume", config_path, as_json)


def _ask(do: str, config_path: str | None, as_json: bool) -> None:
    standing = _answer_to(do, os.path.join(load(config_path).run_dir, NAME))
    if standing is None:
        complain("no server is running")
        sys.exit(os.EX_UNAVAILABLE)
    if standing.error:
        complain(standing.error)
        sys.exit(os.EX_TEMPFAIL)
    if as_json:
        print_object({"state": standing.state, "sessions": standing.sessions})
    else:
        left = f"{standing.sessions} session{'s' if standing.sessions != 1 else ''}"
        words = {"paused": f"no connection is accepted, {left} left", "serving": f"connections are accepted, {left}"}
        print(f"{standing.state}: {words.get(standing.state, left)}")
    if standing.state != {"pause": "paused", "resume": "serving"}[do]:
        sys.exit(os.EX_TEMPFAIL)


def _answer_to(do: str, path: str) -> Standing | None:
    """Return what the master says, None when there is none. One that hands over meanwhile ends the connection: ask the next."""
    ends_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with connect(path) as connection, connection.makefile("rb") as answer:
                connection.settimeout(_PATIENCE_S)
                connection.sendall(msgspec.json.encode({"do": do}) + b"\n")
                line = answer.readline()
        except FileNotFoundError:
            return None
        except ConnectionRefusedError:  # left by a crash, or being replaced at this moment
            if time.monotonic() > ends_at - _PATIENCE_S + _REPLACED_S:
                return None
            line = b""
        except TimeoutError:
            return Standing(error="the server doesn't answer")
        except PermissionError:
            return Standing(error=f"{path}: no permission: run this as the server's user, or root")
        except OSError:
            line = b""
        if line:
            try:
                return msgspec.json.decode(line, type=Standing)
            except msgspec.MsgspecError as error:
                return Standing(error=f"an answer that makes no sense: {error}")
        if time.monotonic() > ends_at:
            return Standing(error="the server doesn't answer")
        time.sleep(_AGAIN_S)
