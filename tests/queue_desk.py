"""A worker's queue and the command line that looks at it, for tests of `smtpd queue`."""

import json
import time
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from gateway import to_toml
from queue_rig import QueueRig, deferred, delivered, envelope_of, put

from smtpd.cli.main import main


class Desk:
    """A worker's queue and the command line that looks at it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.rig = QueueRig(folder)
        self.config = folder / "smtpd.toml"
        self.config.write_text(
            to_toml(
                {
                    "hostname": "mx.example.net",
                    "run_dir": str(self.rig.run_dir),
                    "listener": [{"address": "127.0.0.1:0"}],
                    "spool": {"path": self.rig.path},
                    "route": [{"domains": ["*"], "transport": "discard"}],
                }
            )
        )

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["queue", arguments[0], "-c", str(self.config), *arguments[1:]])

    def run_json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command that prints one object."""
        done = self.run(arguments[0], "--json", *arguments[1:])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout)

    def list_json(self, *arguments: str) -> list[Any]:
        done = self.run("list", "--json", *arguments)
        assert (done.exit_code, done.stderr) == (0, "")
        return [json.loads(line) for line in done.stdout.splitlines()]


def fill(desk: Desk) -> list[str]:
    old_s = time.time() - 7200
    mails = [
        put(desk.rig, envelope_of(b"s@example.com", b"a@example.org", b"b@example.org", received_at_s=old_s),
            [delivered(), deferred()]),
        put(desk.rig, envelope_of(b"", b"c@sub.example.net"), [deferred("expired, last: \x1b[2J\nno")], is_held=True),
        put(desk.rig, envelope_of(b"s@example.com", "é@example.net".encode())),
    ]  # fmt: skip
    return [item.queue_id for item in mails]
