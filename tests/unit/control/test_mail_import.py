"""One mail on its way into a spool: in one commit with all that is known of it, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from queue_rig import deferred, delivered, envelope_of
from spool_rig import Rig

from smtpd.control.importing import MailImport
from smtpd.control.stored import FORMAT, StoredMail
from smtpd.delivery.wishes import NoLeases
from smtpd.mail.envelope import encode_envelope
from smtpd.mail.outcome import encode_outcomes
from smtpd.spool import query

ENVELOPE = envelope_of(b"s@example.com", b"a@example.org", b"b@example.org")


def stored(size: int, *, is_held: bool) -> StoredMail:
    outcomes = encode_outcomes([delivered(), deferred()])
    return StoredMail(FORMAT, "ABC", "", [], size, 3, 4e9, is_held, encode_envelope(ENVELOPE), outcomes)


def take_in(rig: Rig, size: int, *, is_held: bool = False) -> tuple[str, str]:
    answers: list[tuple[str, str]] = []
    mail = MailImport(rig.spool, NoLeases(), stored(size, is_held=is_held))
    written: list[bool] = []
    mail.write(b"x" * size, lambda: written.append(True))
    rig.run_until(lambda: bool(written))
    mail.finish(lambda new_id, error: answers.append((new_id, error)))
    rig.run_until(lambda: bool(answers))
    return answers[0]


@pytest.mark.parametrize("is_held", [False, True])
@pytest.mark.parametrize("size", [10, 300_000])
def test_a_mail_is_never_in_the_spool_without_its_history(tmp_path: Path, size: int, is_held: bool) -> None:
    with Rig(tmp_path) as rig:
        before = len(rig.commits)
        new_id, error = take_in(rig, size, is_held=is_held)
        assert error == ""
        assert [figures[1:] for figures in rig.commits[before:]] == [(1, 0)]
        [mail] = rig.query(lambda connection: query.list_page(connection, 0, 10))
        assert (mail.queue_id, mail.attempts, bool(mail.spill_name)) == (new_id, 3, size > 1000)
        assert (mail.state, mail.due_s) == (("held", None) if is_held else ("deferred", 4e9))
        assert mail.outcomes == [delivered(), deferred()]
        assert rig.spool.shards[0].count == 1
        assert len(rig.claim(now_s=5e9)) == (0 if is_held else 1)  # it is leased to nobody
    with Rig(tmp_path) as rig:
        [mail] = rig.query(lambda connection: query.list_page(connection, 0, 10))
        assert mail.outcomes == [delivered(), deferred()]


def test_a_spool_without_room_takes_nothing_in(tmp_path: Path) -> None:
    with Rig(tmp_path, free_bytes=1 << 62) as rig:
        rig.run_until(lambda: rig.spool.is_full)
        new_id, error = take_in(rig, 10)
        assert (new_id, error) == ("", "ABC: no room in the spool")
        assert rig.query(lambda connection: query.list_page(connection, 0, 10)) == []
