"""Fixtures of the tests against a running gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from gateway import Gateway, running_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One server with two workers and a Maildir for all tests of a module; each test uses mailboxes of its own."""
    with running_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running
