"""`smtpd load`: send mail to a server and say how long it took.

Exit codes: 0 when every mail was accepted, 1 when not, 69 when no session with the target could be begun or matplotlib is
missing, 64 for wrong usage, 130 when it was ended at once by a second interruption.
"""

from __future__ import annotations

import json
import os
from typing import Any

import click

from smtpd.cli.load_options import load_options, make_plan
from smtpd.load.plan import Plan

_KILLED = 130
_PLOT_KINDS = (".png", ".svg", ".pdf")


@click.command("load", context_settings={"help_option_names": ["-h", "--help"]})
@load_options
@click.option("-c", "--counter", is_flag=True, help="Show a running count of mails instead of a bar.")
@click.option("--json", "json_path", metavar="FILE", default="", help="The report as JSON; - is standard output.")
@click.option(
    "--plot", "plot_path", metavar="FILE", default="", help="A picture of the report (.png, .svg, .pdf); needs matplotlib."
)
@click.argument("target")
def load_command(target: str, counter: bool, json_path: str, plot_path: str, **options: Any) -> int:
    """Send mail to TARGET (HOST:PORT, [::1]:PORT or unix:PATH) and measure what it takes.

    \b
    smtpd load -s 20 -m 10000 -d 127.0.0.1:2525         as fast as the target answers
    smtpd load --rate 500 --duration 60 -d -s 200 127.0.0.1:2525   at a rate of its own

    Sizes as 30KiB, durations as 5s or "1 min". All that is measured, and the keys of the JSON: docs/load.md.
    """
    from smtpd.load.plot import draw, require_library
    from smtpd.load.progress import Progress
    from smtpd.load.run import Run
    from smtpd.load.table import render

    plan = make_plan(target, options)
    if plot_path:
        require_library()
    _check_files(json_path, plot_path)
    _raise_descriptor_limit(plan)
    progress = Progress(plan, is_counting=counter)
    run = Run(plan, progress.show, lambda text: click.echo(f"smtpd load: {text}", err=True))
    try:
        report = run.run()
    finally:
        progress.close()
    click.echo(render(report), err=json_path == "-")
    if json_path:
        with click.open_file(json_path, "w") as file:
            file.write(json.dumps(report, indent=2) + "\n")
    if plot_path:
        draw(report, plot_path)
    if run.was_killed:
        return _KILLED
    return exit_code(report)


def exit_code(report: dict[str, Any]) -> int:
    """0: all accepted, 1: some were not, 69: there was nobody."""
    mails = report["mails"]
    if not report["connections"]["ready"]:
        return os.EX_UNAVAILABLE
    if report["load_maker"]["lost_processes"]:
        return 1
    return int(bool(mails["partial"] or mails["failed"] or mails["unsent"] or report["gave_up"] or not mails["accepted"]))


def _check_files(json_path: str, plot_path: str) -> None:
    """Refuse before the run what could not be written after it; a run's figures are not had again. Changes no file."""
    for path in (json_path, plot_path):
        if not path or path == "-":
            continue
        directory = os.path.dirname(path) or "."
        if os.path.isdir(path):
            failure = "Is a directory"
        elif not os.path.isdir(directory):
            failure = "No such directory"
        elif not os.access(path if os.path.exists(path) else directory, os.W_OK):
            failure = "Permission denied"
        else:
            continue
        raise click.UsageError(f"can't write {path}: {failure}")
    if plot_path and os.path.splitext(plot_path)[1].lower() not in _PLOT_KINDS:
        raise click.UsageError(f"--plot makes .png, .svg and .pdf, not {plot_path}")


def _raise_descriptor_limit(plan: Plan) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = plan.sessions // plan.workers + 100
    if soft < wanted <= hard or (soft < wanted and hard == resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    elif wanted > soft:
        raise click.UsageError(
            f"{wanted} open descriptors a process are needed and {hard} allowed: fewer sessions, or more workers"
        )
