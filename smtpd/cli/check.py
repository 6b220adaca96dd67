"""`smtpd check`: everything that is wrong with a configuration file, one finding a line on standard error."""

import sys

import click
import msgspec

from smtpd.config import Fault, examine


@click.command("check")
@click.option("-c", "config_path", metavar="FILE", type=click.Path(), help="The configuration file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line on standard output.")
def check_command(config_path: str | None, as_json: bool) -> None:
    """Check a configuration file: all faults at once; exits 1 if there are any, 0 if there are only warnings."""
    sys.exit(run_check(config_path, as_json))


def run_check(config_path: str | None, as_json: bool) -> int:
    """Print what is wrong with the file that applies and return the exit code; also `smtpd serve -t`."""
    examined = examine(config_path)
    if as_json:
        lines = [
            *(_json(fault, "fault") for fault in examined.faults),
            *(_json(warning, "warning") for warning in examined.warnings),
        ]
        sys.stdout.buffer.write(b"".join(lines))
        sys.stdout.buffer.flush()
        return 1 if examined.faults else 0
    for fault in examined.faults:
        print(fault, file=sys.stderr)
    for warning in examined.warnings:
        print(_with_word(warning), file=sys.stderr)
    if not examined.faults:
        print(f"{examined.file or 'the embedded default'}: ok")
    return 1 if examined.faults else 0


def _json(finding: Fault, severity: str) -> bytes:
    return msgspec.json.encode({"severity": severity, **msgspec.structs.asdict(finding)}) + b"\n"


def _with_word(warning: Fault) -> str:
    return str(msgspec.structs.replace(warning, text=f"warning: {warning.text}"))
