"""Checks of another package for real gateways: made in a folder that PYTHONPATH names, found by their entry points.

`slow` asks a unix socket, where the test answers; `edit` changes what each mail says in its fields X-Do.
"""

from __future__ import annotations

from pathlib import Path

CODE = '''
import asyncio
from typing import Annotated
import msgspec
from smtpd.mail.changes import *
from smtpd.mail.reply import Reply
from smtpd.mail.verdict import Verdict
from smtpd.policy.check import BODY, STAGES, Check
from smtpd.settings.key import Key
from smtpd.settings.section import Section


class SlowSettings(Section, frozen=True, kw_only=True):
    """Asks a socket."""
    socket: Annotated[str, Key("Where to ask", kind="path")]
    at: Annotated[list[str], Key("Stages", choices=STAGES)] = msgspec.field(default_factory=lambda: ["rcpt"])


class Slow(Check):
    Settings = SlowSettings
    stages = STAGES

    def __init__(self, settings, host):
        super().__init__(settings, host)
        self.stages = tuple(settings.at)

    async def ask(self, question):
        reader, writer = await asyncio.open_unix_connection(self.settings.socket)
        what = question.recipient.path if question.recipient else b""
        size = 0
        if question.content is not None:
            async for piece in question.content:
                size += len(piece)
        writer.write(b"%s %s %d\\n" % (question.stage.encode(), what, size))
        answer = (await reader.readline()).strip()
        writer.close()
        await writer.wait_closed()
        if answer == b"boom":
            raise ValueError("boom")
        return None if answer == b"ok" else Verdict(Reply(answer), "policy_service")


class EditSettings(Section, frozen=True, kw_only=True):
    """Does what the mail says."""


class Edit(Check):
    Settings = EditSettings
    stages = (BODY,)

    def ask(self, question):
        changes = []
        for line in question.content.header.split(b"\\r\\n"):
            if line.startswith(b"X-Do: "):
                changes.append(eval(line[6:]))
        return Verdict(changes=tuple(changes)) if changes else None
'''


def install_checks(folder: Path) -> Path:
    """Write the package; return the folder for PYTHONPATH."""
    root = folder / "checks"
    info = root / "stub_checks-1.0.dist-info"
    info.mkdir(parents=True)
    (root / "stub_checks.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stub-checks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[smtpd.checks]\nslow = stub_checks:Slow\nedit = stub_checks:Edit\n")
    return root
