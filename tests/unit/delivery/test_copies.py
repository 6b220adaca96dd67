"""always_bcc: who gets a copy, and that nobody but the spool knows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spool_rig import Rig

from smtpd.delivery.copies import with_copies
from smtpd.delivery.router import Router
from smtpd.mail.envelope import NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, Recipient
from smtpd.settings import RouteSettings
from smtpd.spool.base import Spool
from smtpd.spool.item import SpoolItem


def route(domain: str, bcc: str = "") -> RouteSettings:
    return RouteSettings(domains=[domain], transport="discard", name=domain.strip(".*") or "rest", always_bcc=bcc)


def envelope_of(*paths: bytes) -> Envelope:
    recipients = [Recipient(path, path.rpartition(b"@")[2].decode(), NOTIFY_SUCCESS) for path in paths]
    return Envelope(b"s@example.com", recipients, "192.0.2.1", "unknown", b"h", "ESMTP", 5.0)


class Recording:
    """Remembers the envelopes that mail is begun with."""

    name = "inner"

    def __init__(self) -> None:
        self.begun: list[Envelope] = []

    def begin(self, queue_id: str, envelope: Envelope) -> Any:
        self.begun.append(envelope)
        return queue_id


def begin(routes: list[RouteSettings], envelope: Envelope) -> Envelope:
    inner: Any = Recording()
    router = Router(routes)
    spool: Any = with_copies(inner, router)
    assert spool.begin("Q", envelope) == "Q"
    assert spool.name == "inner"
    return inner.begun[0]


@pytest.mark.parametrize(
    ("paths", "added"),
    [
        ([b"a@example.org"], [b"journal@archive.example"]),
        ([b"a@example.org", b"b@example.org"], [b"journal@archive.example"]),
        ([b"a@example.org", b"b@example.net"], [b"journal@archive.example", b"other@archive.example"]),
        ([b"a@example.com"], []),
        ([b"a@nowhere.example"], []),
        ([b"a@example.org", b"Journal@archive.example"], []),
        ([b"journal@archive.example"], [b"again@example.org"]),
    ],
)
def test_the_mailbox_is_added_once(paths: list[bytes], added: list[bytes]) -> None:
    routes = [
        route("example.org", "journal@archive.example"),
        route("example.net", "other@archive.example"),
        route("example.com"),
        route("archive.example", "again@example.org"),  # a copy of a copy would go round for ever
    ]
    if paths == [b"a@example.org", b"Journal@archive.example"]:
        added = [b"again@example.org"]  # the second is an ordinary recipient, whose route has a mailbox of its own
    given = envelope_of(*paths)
    stored = begin(routes, given)
    assert [recipient.path for recipient in stored.recipients] == [*paths, *added]
    assert [recipient.notify for recipient in stored.recipients] == [NOTIFY_SUCCESS] * len(paths) + [NOTIFY_NEVER] * len(added)
    assert [recipient.path for recipient in given.recipients] == paths
    assert (stored is given) == (not added)


def test_a_mailbox_of_its_own_route_is_added_once() -> None:
    routes = [route("*", "journal@example.org")]
    assert len(begin(routes, envelope_of(b"a@example.org")).recipients) == 2
    assert len(begin(routes, envelope_of(b"journal@example.org")).recipients) == 1


def test_the_domain_of_the_copy_is_in_its_normal_form() -> None:
    copy = begin([route("*", "journal@Bücher.example")], envelope_of(b"a@example.org")).recipients[1]
    assert copy.domain == "xn--bcher-kva.example"


def test_without_such_a_route_the_spool_is_left_as_it_is() -> None:
    inner: Any = Recording()
    router = Router([route("example.org"), route("*")])
    assert with_copies(inner, router) is inner


def test_the_copy_is_stored_with_the_mail(tmp_path: Path) -> None:
    router = Router([route("*", "journal@example.net")])
    with Rig(tmp_path) as rig:
        spool: Spool = with_copies(rig.spool, router)
        writer = spool.begin(spool.next_queue_id(), envelope_of(b"a@example.org"))
        writer.write(b"text\r\n")
        items: list[SpoolItem | None] = []
        spool.commit(writer, lambda item, error: items.append(item))
        rig.run_until(lambda: bool(items))
        assert items[0] is not None
        assert [recipient.path for recipient in items[0].envelope.recipients] == [b"a@example.org", b"journal@example.net"]
    with Rig(tmp_path) as rig:
        (item,) = rig.claim_all()
        assert len(item.envelope.recipients) == 2
