"""The dialogs over real sockets: all of them to a connection in this process, those without options to `smtpd serve` as well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from dialogs.dialog import Dialog, read_dialogs
from dialogs.run import Runner
from dialogs.socket_run import ConnectionWay, GatewayWay
from gateway import Gateway, running_gateway

DIALOGS = read_dialogs()
# TIME needs minutes, and a commit that is late needs a limit of its own: tests/unit/worker has both.
ON_CONNECTION = [
    one for one in DIALOGS if one.options.get("spool") != "late" and not any(step.kind == "TIME" for step in one.steps)
]
ON_GATEWAY = [one for one in DIALOGS if set(one.options) <= {"ways", "hard_errors"}]


@pytest.mark.parametrize("dialog", ON_CONNECTION, ids=lambda dialog: dialog.name)
def test_over_a_connection(dialog: Dialog) -> None:
    with closing(ConnectionWay(dialog)) as way:
        Runner(dialog, way).run()


@pytest.mark.parametrize("dialog", ON_CONNECTION, ids=lambda dialog: dialog.name)
def test_over_a_connection_whose_spool_forgets_bodies(dialog: Dialog) -> None:
    """As `smtpd sink`: the same replies."""
    steps = tuple(step for step in dialog.steps if step.kind != "BODY")
    with closing(ConnectionWay(dialog, wants_body=False)) as way:
        Runner(Dialog(dialog.name, dialog.options, steps), way).run()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    limits = {"error_delay": 0, "hard_errors": 0}
    with running_gateway(tmp_path_factory.mktemp("gateway"), {"workers": 1, "limits": limits}) as running:
        yield running


@pytest.mark.parametrize("dialog", ON_GATEWAY, ids=lambda dialog: dialog.name)
def test_over_a_running_gateway(dialog: Dialog, gateway: Gateway) -> None:
    with closing(GatewayWay(gateway)) as way:
        Runner(dialog, way).run()
