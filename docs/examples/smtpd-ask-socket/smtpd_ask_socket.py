"""A check of one's own: asks a program at a unix socket about each recipient ("alice@example.org" -> "ok" or a reply)."""

import asyncio
from typing import Annotated

from smtpd.mail.verdict import Verdict
from smtpd.policy.check import RCPT, Check, Question
from smtpd.policy.refusals import make_refusal
from smtpd.settings.key import Key
from smtpd.settings.section import Section


class AskSocketSettings(Section, frozen=True, kw_only=True):
    """Ask a program at a unix socket."""

    path: Annotated[str, Key("Where it listens", kind="path")]


class AskSocket(Check):
    Settings = AskSocketSettings
    stages = (RCPT,)

    async def ask(self, question: Question) -> Verdict | None:
        reader, writer = await asyncio.open_unix_connection(self.settings.path)
        try:
            writer.write(question.recipient.path + b"\n")
            answer = (await reader.readline()).decode("ascii", "replace").strip()
        finally:
            writer.close()
        return None if answer == "ok" else Verdict(make_refusal(answer), "policy_service")
