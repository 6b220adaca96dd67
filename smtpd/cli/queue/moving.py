"""`smtpd queue export|import`: evacuate a spool to another host as files, and take them in there.

Exit codes: 0; 73 when a file or directory can't be written or read; 75 when not all of it could be moved: run it again.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import click

from smtpd.cli.queue.frame import (
    complain,
    config_option,
    end,
    filter_options,
    json_option,
    load,
    mails,
    print_object,
    queue_group,
)
from smtpd.control.filter import Filter
from smtpd.control.transfer import FolderError, Transfer


@queue_group.command("export", short_help="Move mail out of the queue into files.")
@config_option
@json_option()
@filter_options
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))
def export_command(config_path: str | None, as_json: bool, wanted: Filter, folder: str) -> None:
    """Move mail out of the queue into DIR: QUEUEID.eml is the mail, QUEUEID.json its envelope and outcomes.

    A mail leaves the queue when its files are on disk. To move all of a running server's mail, suspend its routes first: what is
    being delivered is left out."""
    settings = load(config_path)
    transfer = Transfer(settings.run_dir, settings.spool.path)
    _run(transfer, lambda: transfer.export(folder, wanted, time.time()), as_json, "exported")


@queue_group.command("import", short_help="Move exported mail into the queue.")
@config_option
@json_option()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False))
def import_command(config_path: str | None, as_json: bool, folder: str) -> None:
    """Move mail that was exported to DIR into the queue, with new queue ids; files are removed when it is there."""
    settings = load(config_path)
    transfer = Transfer(settings.run_dir, settings.spool.path)
    _run(transfer, lambda: transfer.take_in(folder, settings), as_json, "imported")


def _run(transfer: Transfer, move: Callable[[], None], as_json: bool, word: str) -> None:
    failure: OSError | FolderError | None = None
    try:
        move()
    except (OSError, FolderError) as error:
        failure = error
    if as_json:
        print_object({word: len(transfer.moved), f"{word}_ids": transfer.moved, "busy": transfer.busy})
    else:
        print(f"{mails(len(transfer.moved))} {word}")
    for queue_id in transfer.busy:
        complain(f"{queue_id} is being delivered, try again")
    if failure is not None:
        complain(str(failure))
        sys.exit(os.EX_CANTCREAT)
    end(transfer)
    if transfer.busy:
        sys.exit(os.EX_TEMPFAIL)
