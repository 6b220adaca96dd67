"""What is written can be loaded again and gives the same settings."""

from __future__ import annotations

import pathlib
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from smtpd.config import embedded_default, load_settings
from smtpd.config.write import settings_toml
from smtpd.settings import (
    DeliverySettings,
    LimitsSettings,
    ListenerSettings,
    PolicySettings,
    RouteSettings,
    Settings,
)

EXAMPLES = sorted((pathlib.Path(__file__).parents[3] / "conf" / "examples").glob("*.toml"))


def reloaded(wanted: Settings, folder: pathlib.Path) -> Settings:
    path = folder / "written.toml"
    path.write_bytes(settings_toml(wanted).encode())
    return load_settings(str(path))


def test_the_embedded_default(tmp_path: pathlib.Path) -> None:
    assert reloaded(embedded_default(), tmp_path) == embedded_default()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples(path: pathlib.Path, tmp_path: pathlib.Path) -> None:
    wanted = load_settings(str(path))
    assert reloaded(wanted, tmp_path) == wanted


def test_tables_within_a_check(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "checks.toml"
    path.write_text(
        """
[[listener]]
address = "127.0.0.1:0"
[[policy.check]]
name = "dnsbl"
[[policy.check.lists]]
zone = "a.example.net"
weight = -2
[[policy.check.lists]]
zone = "b.example.net"
codes = ["127.0.0.[2..11]"]
[[policy.check]]
name = "sender_domain"
[[route]]
domains = ["*"]
transport = "discard"
"""
    )
    wanted = load_settings(str(path))
    assert [entry.zone for entry in wanted.policy.check[0].own.lists] == ["a.example.net", "b.example.net"]
    assert reloaded(wanted, tmp_path) == wanted


def test_units_are_written() -> None:
    text = settings_toml(embedded_default())
    assert 'message_size = "50 MiB"' in text
    assert 'retry = ["5 min", "10 min", "20 min", "40 min", "1 h"]' in text
    assert "relay_domains" not in text
    assert list(tomllib.loads(text)) == list(Settings.__struct_fields__)


_PRINTABLE = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=20).filter(
    lambda text: '"' not in text and "\\" not in text and text.isprintable()
)
_DURATIONS = st.integers(1, 10**8).map(lambda ms: ms / 1000) | st.floats(0.001, 86400)


@given(
    size=st.integers(1024, 1 << 40),
    durations=st.lists(_DURATIONS, min_size=1, max_size=4),
    name=_PRINTABLE,
    path=st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text and text.isprintable()),
    networks=st.lists(st.ip_addresses().map(str), max_size=3, unique=True),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_settings(
    tmp_path: pathlib.Path, size: int, durations: list[float], name: str, path: str, networks: list[str]
) -> None:
    wanted = replace(
        embedded_default(),
        listener=[ListenerSettings(address="[::1]:0", name=name, suppress={network: ["DSN", "SIZE"] for network in networks})],
        limits=LimitsSettings(message_size=size, header_size=1024, command_timeout=min(durations[0], 86400.0)),
        policy=PolicySettings(postmaster="a@b.example", bare_newline_networks=dict.fromkeys(networks, "reject")),
        route=[RouteSettings(domains=["*"], transport="maildir", name=name, path=path)],
        delivery=DeliverySettings(retry=durations),
    )
    assert reloaded(wanted, tmp_path) == wanted
