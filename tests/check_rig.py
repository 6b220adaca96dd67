"""A check by itself, with the host that a worker gives it: asked as the pipeline asks, on the loop or on the side thread."""

import inspect

from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.check import CheckHost, Client, Question
from smtpd.settings import DnsSettings, Settings


class Lines:
    """A log that keeps its lines."""

    def __init__(self):
        self.lines = []

    def warning(self, component, text, **fields):
        self.lines.append(text)

    info = error = warning


class Counts:
    """Cells and their index at once: counters are names with labels."""

    def __init__(self):
        self.counts = {}

    def counter(self, name, **labels):
        return (name, *sorted(labels.items()))

    gauge = counter

    def add(self, cell, amount):
        self.counts[cell] = self.counts.get(cell, 0) + amount

    def inc(self, cell):
        self.add(cell, 1)

    def set(self, cell, value):
        self.counts[cell] = value

    def total(self, name):
        return sum(count for cell, count in self.counts.items() if cell[0] == name)


class CheckRig:
    """`ask` gives the verdict; `asked_side` tells whether the last one needed the side thread."""

    def __init__(self, dns_server="", **settings):
        self.loop = Loop()
        self.side = SideThread(self.loop)
        self.files = FilesThread(self.loop)
        self.files.start()
        self.log = Lines()
        self.counts = Counts()
        dns = DnsSettings(servers=[dns_server] if dns_server else [], timeout=1.2, check_timeout=2.0)
        self.settings = Settings(hostname="mx1.example.net", dns=dns, **settings)
        self.checks = []
        self.asked_side = False

    def make(self, kind, name="check", **settings):
        host = CheckHost(name, self.loop, self.side, self.files, self.log, self.counts, self.counts, self.settings)
        check = kind(kind.Settings(**settings), host)
        self.checks.append(check)
        return check

    def ask(self, check, question, timeout_s=30.0):
        """The verdict; raises what the check raised."""
        answer = check.ask(question)
        self.asked_side = inspect.isawaitable(answer)
        return self.run(lambda: answer, timeout_s) if self.asked_side else answer

    def run(self, make_coroutine, timeout_s=30.0):
        answers = []
        self.side.ask(make_coroutine, lambda result, error: answers.append((result, error)), timeout_s)
        self.until(lambda: answers)
        [(result, error)] = answers
        if error is not None:
            raise error
        return result

    def until(self, condition):
        for _ in range(2000):
            if condition():
                self.loop.turn(0)
                return
            self.loop.turn(0.05)
        raise AssertionError("never happened")

    def close(self):
        for check in self.checks:
            check.close()
        assert self.side.close(10)
        self.files.close()
        self.loop.close()


class Memories:
    """The memories of a session with one check."""

    def __init__(self, memory):
        self.memory = memory

    def memory_of(self, place):
        return self.memory


def question(stage="rcpt", address="192.0.2.1", *, helo=b"c.example", sender=b"alice@example.org", recipient=None, **more):
    """A question as a session would ask it; `memory` is the session's."""
    memories = Memories(more.pop("memory", {}))
    client = Client(address, 4025, more.pop("name", "unknown"), helo=helo, is_trusted=more.pop("is_trusted", False))
    recipient = recipient if recipient is not None or stage != "rcpt" else recipient_of("bob@example.net")
    return Question(stage, client, reverse_path=sender, recipient=recipient, memories=memories, **more)


def recipient_of(mailbox):
    from smtpd.mail.envelope import Recipient

    return Recipient(mailbox.encode(), mailbox.partition("@")[2])
