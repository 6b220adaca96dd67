"""`always_bcc` of a route: a mail with a recipient of it is stored with one recipient more, once for each such mailbox.

It is added to what is stored only: the session's recipients, its replies, the Received field and counters know nothing of it. The
copy is for NOTIFY=NEVER, and the route of its own mailbox adds no further one. Without such a route nothing stands in the way.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from smtpd.delivery.router import Router
from smtpd.mail.address import normal_domain
from smtpd.mail.envelope import NOTIFY_NEVER, Envelope, Recipient
from smtpd.spool.base import BodyWriter, Spool


def with_copies(spool: Spool, router: Router) -> Spool:
    """Return the spool that new mail from sessions goes to: `spool` itself if no route has `always_bcc`."""
    if not any(route.settings.always_bcc for route in router.routes):
        return spool
    return cast(Spool, _CopyingSpool(spool, router))


class _CopyingSpool:
    """A spool whose `begin` adds recipients; all else is the spool's own."""

    def __init__(self, spool: Spool, router: Router) -> None:
        self._spool = spool
        self._router = router
        self._made: dict[str, Recipient] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._spool, name)

    def begin(self, queue_id: str, envelope: Envelope) -> BodyWriter:
        return self._spool.begin(queue_id, self._with_copies(envelope))

    def _with_copies(self, envelope: Envelope) -> Envelope:
        copies: dict[str, Recipient] = {}
        for recipient in envelope.recipients:
            route = self._router.route_of(envelope, recipient.domain)
            if route is not None and (mailbox := route.settings.always_bcc):
                copies[mailbox] = self._made.get(mailbox) or self._make(mailbox)
        if copies:
            known = {recipient.path.lower() for recipient in envelope.recipients}
            added = [copy for copy in copies.values() if copy.path.lower() not in known]
            if added:
                return msgspec.structs.replace(envelope, recipients=[*envelope.recipients, *added])
        return envelope

    def _make(self, mailbox: str) -> Recipient:
        made = self._made[mailbox] = Recipient(mailbox.encode(), normal_domain(mailbox.rpartition("@")[2]), NOTIFY_NEVER)
        return made
