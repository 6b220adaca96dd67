"""Makes the transport that a route names. Raises ValueError for a route that relays where there is nothing to relay with."""

from __future__ import annotations

from smtpd.delivery.router import Route
from smtpd.net.files import FilesThread
from smtpd.settings import Settings
from smtpd.transports.base import Transport
from smtpd.transports.discard import DiscardTransport
from smtpd.transports.maildir import MaildirTransport
from smtpd.transports.relay.transport import RelayHost, RelayTransport


def make_transport(route: Route, settings: Settings, files: FilesThread, relay: RelayHost | None) -> Transport:
    """Return a transport of its own for this route."""
    if route.settings.transport == "discard":
        return DiscardTransport()
    if route.settings.transport == "maildir":
        return MaildirTransport(route.settings.path, settings.hostname, files)
    if relay is None:
        raise ValueError(f"route {route.name}: nothing to relay with")
    return RelayTransport(route.settings, settings.delivery, relay)
