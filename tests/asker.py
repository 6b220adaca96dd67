"""DNS from a table, for rules: what is not in it doesn't exist, and `failing` names fail."""

import asyncio

from smtpd.net.dns_records import ABSENT, EMPTY, Answer

FAILED = Answer(is_failed=True, text="server failure")


class TableAsker:
    """`records` maps (name, kind) to a list of texts; a name with records of another kind is EMPTY."""

    def __init__(self, records=None, failing=()):
        self.records = records or {}
        self.failing = set(failing)
        self.asked = []

    async def ask(self, name, kind):
        self.asked.append((name, kind))
        if name in self.failing or (name, kind) in self.failing:
            return FAILED
        texts = self.records.get((name, kind))
        if texts:
            return Answer(tuple(texts))
        return EMPTY if any(known == name for known, _ in self.records) else ABSENT

    async def ask_all(self, questions):
        return [await self.ask(name, kind) for name, kind in questions]


def run(rule):
    return asyncio.run(rule)


def wire(verdict):
    """The reply's code and enhanced code, "" for no objection."""
    if verdict is None:
        return ""
    code, enhanced, _ = verdict.reply.text.decode().split(" ", 2)
    return f"{code} {enhanced}"
