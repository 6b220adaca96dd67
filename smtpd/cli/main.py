"""The command `smtpd`: names its subcommands, imports the one that is called, turns failures into exit codes.

Nothing heavy is imported here: `smtpd --help` must be there at once, and `serve` needs no table library.
Every failure that is meant for people ends as its text on stderr and a code from sysexits.h, never as a
traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from smtpd import __version__
from smtpd.compiled import find_unbuilt
from smtpd.errors import SmtpdError, StartupError
from smtpd.log.descriptors import hold_standard_descriptors

# name -> module, attribute, what --help says of it
_COMMANDS = {
    "serve": ("smtpd.cli.serve", "serve_command", "Take mail in and deliver it until stopped."),
    "check": ("smtpd.cli.check", "check_command", "Check a configuration file and report all its faults."),
    "config": ("smtpd.cli.config", "config_command", "Show the configuration in effect."),
    "explain": ("smtpd.cli.explain", "explain_command", "Show what each check says of a mail, and its route."),
    "queue": ("smtpd.cli.queue", "queue_group", "Look at the mail that waits, and change what becomes of it."),
    "transcript": ("smtpd.cli.transcript", "transcript_command", "Watch the dialogue with a client or a next hop."),
    "load": ("smtpd.cli.load", "load_command", "Send mail to a server and measure what it takes."),
    "sink": ("smtpd.cli.sink", "sink_command", "Take mail and throw it away, or misbehave: a target for senders."),
}
_INTERRUPTED = 130  # as shells report an end by SIGINT


class LazyGroup(click.Group):
    """Imports a subcommand's module when it is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry[0]), entry[1])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in _COMMANDS.items()])

    def main(  # type: ignore[override] # click gives overloads; ours always exits
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> NoReturn:
        """Run and exit; the code is the command's own, or that of its failure."""
        hold_standard_descriptors()
        extra["standalone_mode"] = False
        try:
            check_build()
            result = super().main(args, prog_name or "smtpd", **extra)
            sys.stdout.flush()
            code = result if isinstance(result, int) else os.EX_OK
        except click.UsageError as error:
            error.show()
            code = os.EX_USAGE
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            code = _INTERRUPTED
        except SmtpdError as error:
            show_failure(error)
            code = error.exit_code if isinstance(error, StartupError) else os.EX_SOFTWARE
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
            # whoever read our output has enough; nothing more may be written at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = os.EX_OK
        sys.exit(code)


def check_build() -> None:
    """Raise a StartupError (EX_UNAVAILABLE) when compiled modules are missing: half a build must not run."""
    unbuilt = find_unbuilt()
    if unbuilt:
        more = f" and {len(unbuilt) - 1} more" if len(unbuilt) > 1 else ""
        text = f"the extension {unbuilt[0]}{more} is not built for this Python: run `make build`"
        raise StartupError(text, os.EX_UNAVAILABLE)


def show_failure(error: SmtpdError) -> None:
    """The failure's text on stderr; faults of a configuration say their file themselves, each on its line."""
    is_faults = hasattr(error, "faults")
    for line in str(error).splitlines() or [type(error).__name__]:
        click.echo(line if is_faults else f"smtpd: {line}", err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="smtpd", message="%(prog)s %(version)s")
def main() -> None:
    """Inbound SMTP gateway: takes mail in, has custody of it on disk before it says 250, delivers it."""
