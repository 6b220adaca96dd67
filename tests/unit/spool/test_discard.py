"""The engine that keeps nothing."""

from __future__ import annotations

from spool_rig import make_envelope

from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.settings.gateway import SpoolSettings
from smtpd.spool import open_spool


def test_discard_answers_at_once_and_keeps_nothing() -> None:
    loop = Loop()
    log = None
    one, two = (
        open_spool(loop, FilesThread(loop), SpoolSettings(engine="discard", path="/nowhere"), 1, log, slot=slot)  # type: ignore[arg-type]
        for slot in (0, 1)
    )
    writer = one.begin(one.next_queue_id(), make_envelope())
    assert not writer.wants_body
    assert writer.write(b"x" * 1000)
    assert writer.size_bytes == 1000
    answers: list[object] = []
    one.commit(writer, lambda item, error: answers.append((item, error)))
    one.end_turn()
    assert answers == [(None, None)]
    one.claim(10, 0.0, lambda items, error: answers.append(items))
    assert answers[1] == []
    assert one.next_due_s() is None
    assert not one.is_full
    assert one.next_queue_id()[10:] != two.next_queue_id()[10:]
    one.close(lambda: answers.append("closed"))
    assert answers[2] == "closed"
    loop.close()
