"""Each dialogue runs twice: replies whole, and octet by octet."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from client_rig import Client, greeted

from smtpd.proto.client.rules import ClientRules


@pytest.fixture(params=[False, True], ids=["whole", "octets"])
def is_octet_by_octet(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def new_client(is_octet_by_octet: bool) -> Callable[..., Client]:
    """Make a client that waits for the greeting."""
    return lambda **rules: Client(ClientRules(b"out.example.org", **rules), is_octet_by_octet)


@pytest.fixture
def ready_client(is_octet_by_octet: bool) -> Callable[..., Client]:
    """Make a client that is READY to send to a next hop with these extensions."""
    return lambda *extensions, **rules: greeted(*extensions, is_octet_by_octet=is_octet_by_octet, **rules)
