"""Greylisting with the local store: who is put off, who passes, what is remembered, and what a bad disk does."""

import multiprocessing
import sqlite3

import pytest
from asker import wire
from check_rig import CheckRig, question, recipient_of
from name_server import NameServer

from smtpd.policy.greylist.check import Greylist
from smtpd.policy.greylist.sender import make_key, network_of, normal_sender
from smtpd.policy.greylist.store import Record, Times, Touch, judge
from smtpd.settings import Settings, SpoolSettings
from smtpd.settings.greylist import GreylistSettings

TIMES = Times(300, 7200, 86400, 2)


@pytest.mark.parametrize(
    ("record", "passes", "seen_s", "now_s", "said", "kept", "passes_then"),
    [
        (None, 0, 0.0, 1000.0, Touch(300), Record(1000.0), 0),
        (Record(1000.0), 0, 0.0, 1100.0, Touch(200), None, 0),
        (Record(1000.0), 0, 0.0, 1299.9, Touch(1), None, 0),
        (Record(1000.0), 0, 0.0, 1300.0, Touch(), Record(1000.0, 1300.0), 1),
        (Record(1000.0), 0, 0.0, 8201.0, Touch(300), Record(8201.0), 0),  # the second try came too late
        (Record(1000.0), 0, 0.0, 900.0, Touch(300), Record(900.0), 0),  # the clock was set back
        (Record(1000.0, 1300.0), 1, 1300.0, 80_000.0, Touch(), Record(1000.0, 80_000.0), 1),
        (Record(1000.0, 1300.0), 1, 1300.0, 90_000.0, Touch(300), Record(90_000.0), 0),  # forgotten
        (None, 2, 1300.0, 2000.0, Touch(is_client_known=True), None, 2),
        (None, 2, 1300.0, 90_000.0, Touch(300), Record(90_000.0), 0),  # the client too
    ],
)
def test_rules(record, passes, seen_s, now_s, said, kept, passes_then):
    assert judge(record, passes, seen_s, TIMES, now_s) == (said, kept, passes_then)


def test_no_client_is_known_where_that_is_off():
    assert judge(None, 99, 1000.0, Times(300, 7200, 86400, 0), 1000.0)[0].wait_s == 300


@pytest.mark.parametrize(
    ("sender", "normal"),
    [
        (b"Alice@Example.org", b"alice@example.org"),
        (b"", b""),
        (b"alice+tag@example.org", b"alice@example.org"),
        (b"+tag@example.org", b"+tag@example.org"),
        (b"prvs=1234abcdef=alice@example.org", b"alice@example.org"),
        (b"bounce-12345@example.org", b"bounce-#@example.org"),
        (b"bounce-7f3a99c0d1@example.org", b"bounce-#@example.org"),
        (b"list-alice=example.net@example.org", b"list=@example.org"),
        (b"list+bob=example.com@example.org", b"list@example.org"),
        (b"SRS0=abcd=Xy=example.com=alice@example.org", b"srs0@example.org"),
        (b"decade@example.org", b"decade@example.org"),
    ],
)
def test_senders_that_vary_are_one(sender, normal):
    assert normal_sender(sender) == normal


def test_networks_stand_for_clients():
    assert network_of("192.0.2.77") == "192.0.2.0/24"
    assert network_of("::ffff:192.0.2.77") == "192.0.2.0/24"
    assert network_of("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert network_of("192.0.2.77", ipv4_prefix=32) == "192.0.2.77/32"
    assert network_of("") == ""
    assert make_key("a", "bc") != make_key("ab", "c")


class GreyRig(CheckRig):
    """A greylist on a folder, with a clock of its own."""

    def __init__(self, folder, dns_server="", **settings):
        super().__init__(dns_server, spool=SpoolSettings(path=str(folder)))
        self.now_s = 1_000_000.0
        self.check = self.restart(**settings)

    def restart(self, **settings):
        if self.checks:
            self.checks.pop().close()
        self.check = self.make(Greylist, **settings)
        self.check._local._clock = lambda: self.now_s
        return self.check

    def say(self, address="192.0.2.1", sender=b"alice@example.org", recipient="bob@example.net", after_s=0.0):
        self.now_s += after_s
        verdict = self.ask(self.check, question(address=address, sender=sender, recipient=recipient_of(recipient)))
        assert verdict is None or (wire(verdict), verdict.reason) == ("450 4.7.1", "greylist")
        return verdict is None


@pytest.fixture
def rig(tmp_path):
    rig = GreyRig(tmp_path)
    yield rig
    rig.close()


def test_first_try_is_put_off_and_the_second_taken(rig):
    verdict = rig.ask(rig.check, question())
    assert verdict.reply.text == b"450 4.7.1 Greylisted, please try again in 300 seconds"
    assert not rig.say(after_s=100, recipient="bob@example.net")
    assert rig.say(after_s=200, address="192.0.2.99", sender=b"alice+x@EXAMPLE.org", recipient="BOB@example.net")
    assert not rig.say(address="198.51.100.1")
    assert not rig.say(recipient="carol@example.net")


def test_it_survives_a_restart(rig):
    assert not rig.say()
    rig.restart()
    assert rig.say(after_s=301)


def test_client_that_passed_often_is_not_put_off_and_costs_no_question(tmp_path):
    rig = GreyRig(tmp_path, known_after=2)
    for number in range(2):
        assert not rig.say(recipient=f"r{number}@example.net")
        assert rig.say(recipient=f"r{number}@example.net", after_s=300)
    assert rig.say(recipient="new@example.net", sender=b"new@example.com")
    assert rig.asked_side
    assert rig.say(recipient="newer@example.net")
    assert not rig.asked_side
    rig.close()


def test_postmaster_is_not_put_off(rig):
    assert rig.say(recipient="postmaster@example.net")


def test_old_rows_are_swept(rig, tmp_path):
    rig.say()
    rig.say(after_s=3 * 86400, recipient="carol@example.net")
    with sqlite3.connect(tmp_path / "greylist.sqlite") as database:
        [(count,)] = database.execute("select count(*) from triplet")
    database.close()
    assert count == 1


def test_damaged_file_is_set_aside(rig, tmp_path):
    rig.say()
    rig.checks.pop().close()
    for tail in ("-wal", "-shm"):
        (tmp_path / f"greylist.sqlite{tail}").unlink(missing_ok=True)
    (tmp_path / "greylist.sqlite").write_bytes(b"this is no database" * 1000)
    rig.restart()
    assert not rig.say(after_s=301)
    assert rig.say(after_s=301)
    assert (tmp_path / "greylist.sqlite.broken").exists()
    assert "begun anew" in rig.log.lines[0]


def test_store_that_can_not_be_opened_is_a_failure_of_the_check(tmp_path):
    (tmp_path / "file").touch()
    rig = GreyRig(tmp_path, path=str(tmp_path / "file" / "greylist.sqlite"))
    with pytest.raises(OSError, match="file"):
        rig.say()
    rig.close()


def _touch_many(path, number, pipe):
    from smtpd.policy.greylist.local import LocalStore

    store = LocalStore(path, Times(1, 7200, 86400, 0), print, lambda: 1000.0)
    pipe.send([store._touch(make_key("c"), make_key(str(i))).wait_s for i in range(200)])
    store.close()


def test_workers_share_the_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    path = str(tmp_path / "greylist.sqlite")
    pipes, processes = [], []
    for number in range(3):
        here, there = context.Pipe()
        process = context.Process(target=_touch_many, args=(path, number, there))
        process.start()
        pipes.append(here)
        processes.append(process)
    assert [len(pipe.recv()) for pipe in pipes] == [200, 200, 200]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    with sqlite3.connect(path) as database:
        [(count,)] = database.execute("select count(*) from triplet")
    database.close()
    assert count == 200


def test_faults_of_settings():
    [(key, _)] = Greylist.find_faults(GreylistSettings(delay=600.0, retry_window=600.0), Settings())
    assert key == "retry_window"


def test_sender_whose_spf_passes_is_known_by_its_domain(tmp_path):
    names = NameServer()
    names.add("example.org", "TXT", '"v=spf1 ip4:192.0.2.0/24 ip4:198.51.100.0/24 -all"')
    rig = GreyRig(tmp_path, dns_server=names.address, spf=True, known_after=1)
    assert not rig.say(address="192.0.2.1")
    assert rig.say(address="198.51.100.1", after_s=301)  # another network of the same domain
    assert rig.say(address="192.0.2.77", recipient="carol@example.net")
    assert rig.say(address="192.0.2.77", recipient="dave@example.net")
    assert not rig.asked_side  # remembered
    assert not rig.say(address="192.0.2.77", sender=b"alice@example.com", recipient="dave@example.net")
    assert not rig.say(address="203.0.113.1", recipient="carol@example.net")  # SPF fails: its network stands for it
    rig.close()
    names.close()
