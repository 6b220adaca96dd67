"""DnsRecords on a side thread, as a worker has it, for tests that ask from outside."""

from smtpd.net.dns_channel import open_channel
from smtpd.net.dns_records import DnsRecords
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.settings import DnsSettings


class DnsRig:
    """`run` gives a coroutine to the side thread and turns the loop until it is answered."""

    def __init__(self, address, **settings):
        self.loop = Loop()
        self.side = SideThread(self.loop)
        self.now = 1000.0
        self.settings = DnsSettings(servers=[address], **settings)
        self.channel = open_channel(self.settings, self.side)
        self.dns = DnsRecords(self.channel, self.settings, lambda: self.now)

    def run(self, make_coroutine):
        """The coroutine's result; raises what it raised."""
        answers = []
        self.side.ask(make_coroutine, lambda result, error: answers.append((result, error)), 30.0)
        for _ in range(2000):
            if answers:
                break
            self.loop.turn(0.05)
        [(result, error)] = answers
        if error is not None:
            raise error
        return result

    def ask(self, name, kind):
        return self.run(lambda: self.dns.ask(name, kind))

    def close(self):
        assert self.side.close(10)
        self.loop.close()
