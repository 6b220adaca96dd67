"""`smtpd config`: the configuration in force, defaults included, as TOML that can be loaded again or as JSON."""

import sys

import click
import msgspec

from smtpd.config import ConfigError, load_settings
from smtpd.config.write import settings_toml


@click.command("config")
@click.option("-c", "config_path", metavar="FILE", type=click.Path(), help="The configuration file.")
@click.option("--json", "as_json", is_flag=True, help="JSON: sizes in octets, durations in seconds.")
def config_command(config_path: str | None, as_json: bool) -> None:
    """Print the configuration in force, with every default filled in; a file with faults exits 78."""
    try:
        settings = load_settings(config_path)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    data = msgspec.json.encode(settings) + b"\n" if as_json else settings_toml(settings).encode()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
