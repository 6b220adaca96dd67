"""`smtpd queue flush|hold|release|requeue|delete|suspend|resume`: what becomes of the mail that waits.

Exit codes: 0, also when a filter met nothing; 65 when an id is not in the queue; 75 when not everybody could be asked, or a mail
could not be got at.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from smtpd.cli.queue.frame import (
    commander,
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
from smtpd.control.commander import Outcome, QueueCommander
from smtpd.control.filter import Filter
from smtpd.control.wire import Results

_DONE = {
    "flush": "due now",
    "hold": "held",
    "release": "released",
    "requeue": "requeued",
    "delete": "deleted",
}
_UNCHANGED = {
    "flush": "is held: `release` makes it due",
    "hold": "is held already",
    "release": "is not held",
    "requeue": "is as it was",
    "delete": "is as it was",
}
_UNDER_WAY = {
    "flush": "is being delivered now",
    "hold": "is being delivered now; it is held if that fails",
    "release": "is being delivered now",
    "requeue": "is being delivered now; what is left of it then starts anew",
    "delete": "is being delivered now: it is NOT deleted yet; what is left of it then will be",
}


def _selection(command: Callable[..., None]) -> Callable[..., Any]:
    """Ids, or the filters of `list`, or --all."""
    command = filter_options(command)
    command = click.option("--all", "is_all", is_flag=True, help="All mail in the queue.")(command)
    command = json_option()(command)
    command = click.argument("queue_ids", nargs=-1, metavar="[QUEUEID]...")(command)
    return config_option(command)


def _check(wanted: Filter, queue_ids: tuple[str, ...], is_all: bool) -> Filter:
    """Return the filter of what was chosen; a command that chooses nothing is a mistake."""
    if is_all and (queue_ids or not wanted.is_all):
        raise click.UsageError("--all goes with neither ids nor filters")
    if queue_ids:
        return Filter(wanted.domain, wanted.sender, wanted.older_s, wanted.state, wanted.reason, list(queue_ids))
    if wanted.is_all and not is_all:
        raise click.UsageError("which mails? Give ids, filters or --all")
    return wanted


@queue_group.command("flush", short_help="Try deferred mail now.")
@_selection
def flush_command(config_path: str | None, as_json: bool, is_all: bool, queue_ids: tuple[str, ...], wanted: Filter) -> None:
    """Try deferred mail now: these ids, what the filters want, or all of it."""
    is_all = is_all or (wanted.is_all and not queue_ids)
    _run("flush", config_path, _check(wanted, queue_ids, is_all), as_json)


@queue_group.command("hold")
@_selection
def hold_command(config_path: str | None, as_json: bool, is_all: bool, queue_ids: tuple[str, ...], wanted: Filter) -> None:
    """Try mail no more until it is released."""
    _run("hold", config_path, _check(wanted, queue_ids, is_all), as_json)


@queue_group.command("release", short_help="Try held mail now.")
@_selection
def release_command(config_path: str | None, as_json: bool, is_all: bool, queue_ids: tuple[str, ...], wanted: Filter) -> None:
    """Try held mail now; one whose lifetime is over gets one attempt."""
    _run("release", config_path, _check(wanted, queue_ids, is_all), as_json)


@queue_group.command("requeue", short_help="Let mail start anew, by the routes of now.")
@_selection
def requeue_command(config_path: str | None, as_json: bool, is_all: bool, queue_ids: tuple[str, ...], wanted: Filter) -> None:
    """Let mail start anew, by the routes of now, held or not; recipients that have it don't get it again."""
    _run("requeue", config_path, _check(wanted, queue_ids, is_all), as_json)


@queue_group.command("delete")
@click.option("--yes", "is_sure", is_flag=True, help="Needed to delete by filters or all.")
@_selection
def delete_command(
    config_path: str | None, as_json: bool, is_all: bool, queue_ids: tuple[str, ...], wanted: Filter, is_sure: bool
) -> None:
    """Delete mail: nobody gets it, nobody is told."""
    chosen = _check(wanted, queue_ids, is_all)
    if not queue_ids and not is_sure:
        raise click.UsageError("to delete what you have not named needs --yes; `smtpd queue list` takes the same filters")
    _run("delete", config_path, chosen, as_json)


def _run(action: str, config_path: str | None, wanted: Filter, as_json: bool) -> None:
    queue = commander(config_path)
    outcome = queue.change(action, wanted)
    if as_json:
        print_object({"action": action, **_as_dict(outcome.results), "not_found": outcome.not_found})
    else:
        print(f"{mails(len(outcome.results.changed))} {_DONE[action]}")
        is_named = bool(wanted.ids)
        _tell(outcome.results.under_way, _UNDER_WAY[action])
        if is_named:
            _tell(outcome.results.unchanged, _UNCHANGED[action])
    _finish(queue, outcome)


def _as_dict(results: Results) -> dict[str, Any]:
    return {
        "changed": len(results.changed),
        "changed_ids": results.changed,
        "unchanged": results.unchanged,
        "under_way": results.under_way,
        "busy": results.busy,
    }


def _tell(queue_ids: list[str], text: str) -> None:
    for queue_id in queue_ids:
        complain(f"{queue_id} {text}")


def _finish(queue: QueueCommander, outcome: Outcome) -> None:
    _tell(outcome.results.busy, "is in use, try again")
    _tell(outcome.not_found, "is not in the queue")
    end(queue)
    if outcome.results.busy:
        sys.exit(os.EX_TEMPFAIL)
    if outcome.not_found:
        sys.exit(os.EX_DATAERR)


# --- routes ----------------------------------------------------------------------------------------------------------


@queue_group.command("suspend", short_help="Deliver nothing by a route until it is resumed.")
@config_option
@json_option()
@click.argument("route")
def suspend_command(config_path: str | None, as_json: bool, route: str) -> None:
    """Deliver nothing by a route until it is resumed; its mail is deferred and its lifetime doesn't end meanwhile."""
    _set_suspended(config_path, as_json, route, is_suspended=True)


@queue_group.command("resume", short_help="Deliver by a suspended route again.")
@config_option
@json_option()
@click.argument("route")
def resume_command(config_path: str | None, as_json: bool, route: str) -> None:
    """Deliver by a suspended route again; what waited for it is due now."""
    _set_suspended(config_path, as_json, route, is_suspended=False)


def _set_suspended(config_path: str | None, as_json: bool, route: str, *, is_suspended: bool) -> None:
    settings = load(config_path)
    names = [section.name for section in settings.route]
    queue = QueueCommander(settings.run_dir, settings.spool.path)
    if route not in names and (is_suspended or route not in queue.suspended()):
        complain(f"no route {route}; there are {', '.join(names)}")
        sys.exit(os.EX_DATAERR)
    outcome = queue.set_suspended(route, is_suspended)
    if as_json:
        print_object({"route": route, "suspended": is_suspended, "due": len(outcome.results.changed)})
    elif is_suspended:
        print(f"route {route} is suspended")
    else:
        print(f"route {route} is at work again, {mails(len(outcome.results.changed))} due now")
    _finish(queue, outcome)
