"""What the exporter answers to those who mean well."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator

import pytest
from exporter_client import Client, Fixture
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from smtpd.master import exporter as exporter_module
from smtpd.metrics.catalogue import METRICS
from smtpd.metrics.slab import LOOP

SCRAPER = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4"


@pytest.fixture
def site() -> Iterator[Fixture]:
    site = Fixture()
    yield site
    site.close()


def test_metrics_in_the_text_format(site: Fixture) -> None:
    status, headers, body = site.get("/metrics")
    assert status == 200
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "content-encoding" not in headers
    assert len(list(parse_text(body.decode()))) == len(METRICS)


def test_metrics_as_openmetrics(site: Fixture) -> None:
    status, headers, body = site.get("/metrics", SCRAPER)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert len(list(parse_openmetrics(body.decode()))) == len(METRICS)
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    ("header", "is_zipped"),
    [("gzip", True), ("deflate, GZIP;q=0.5", True), ("br, x-gzip", True), ("gzip;q=0", False), ("gzip; q=0.0", False),
     ("deflate", False), ("", False)],
)  # fmt: skip
def test_gzip_where_it_is_taken(site: Fixture, header: str, is_zipped: bool) -> None:
    _, headers, body = site.get("/metrics", f"Accept-Encoding: {header}", SCRAPER)
    assert (headers.get("content-encoding") == "gzip") == is_zipped
    assert (gzip.decompress(body) if is_zipped else body).endswith(b"# EOF\n")


def test_a_scrape_shows_what_has_been_counted_by_then(site: Fixture) -> None:
    number = site.index.counter("smtpd_replies_total", code="250")
    cells = site.slabs.cells(site.slabs.take_bank(0), LOOP)
    client = site.client()
    for count in (1, 2, 3):
        cells.inc(number)
        _, _, body = site.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", client)
        assert f'smtpd_replies_total{{code="250"}} {count}.0\n'.encode() in body


def test_many_who_ask_in_one_turn_cost_one_rendering() -> None:
    class Source:
        count = 0

        def collect(self) -> Iterator[object]:
            Source.count += 1
            return iter(())

    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Source())  # type: ignore[arg-type]
    Source.count = 0
    site = Fixture(registry)
    clients = [site.client() for _ in range(10)]
    site.drive(lambda: site.exporter.connection_count == 10)
    for client in clients:
        client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    site.loop.turn(1.0)
    site.drive(lambda: all(client.responses() for client in clients))
    site.close()
    assert Source.count < 10


@pytest.mark.parametrize("page", ["healthz", "readyz"])
@pytest.mark.parametrize("is_well", [True, False])
def test_health_and_readiness(site: Fixture, page: str, is_well: bool) -> None:
    verdict = is_well, {"status": "as it is", "problems": []}
    site.health, site.readiness = (verdict, (not is_well, {})) if page == "healthz" else ((not is_well, {}), verdict)
    status, headers, body = site.get(f"/{page}")
    assert status == (200 if is_well else 503)
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == verdict[1]


def test_status_is_json(site: Fixture) -> None:
    site.status = lambda: {"workers": [{"slot": 0, "sessions": 3}], "name": "ü"}
    status, headers, body = site.get("/status")
    assert (status, headers["cache-control"]) == (200, "no-store")
    assert json.loads(body) == {"workers": [{"slot": 0, "sessions": 3}], "name": "ü"}


def test_the_root_names_the_pages(site: Fixture) -> None:
    assert b"/metrics" in site.get("/")[2]


@pytest.mark.parametrize("target", ["/metrics", "/healthz", "/status", "/nothing"])
def test_head_has_the_headers_of_get_and_no_body(site: Fixture, target: str) -> None:
    _, want, body = site.get(target)
    client = site.client()
    client.send(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    site.drive(lambda: len(client.responses("HEAD GET")) == 2)
    (_, got, nothing), (_, _, after) = client.responses("HEAD GET")
    assert got | {"date": ""} == want | {"date": ""}
    assert got["content-length"] == str(len(body))
    assert nothing == b""
    assert json.loads(after) == {"status": "ok"}


@pytest.mark.parametrize("target", ["/healthz?verbose=1", "http://mx.example.net:9025/healthz", "HTTP://x/healthz?"])
def test_targets_with_a_query_or_in_absolute_form(site: Fixture, target: str) -> None:
    assert site.get(target)[0] == 200


def test_a_connection_is_kept_and_http_1_0_is_not(site: Fixture) -> None:
    client = site.client()
    for _ in range(3):
        assert site.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", client)[0] == 200
    assert not client.is_ended
    old = site.client()
    old.send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert site.drive_to_end(old)[0][0] == 200


def test_a_client_that_says_close_is_left(site: Fixture) -> None:
    client = site.client()
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    ((status, headers, _),) = site.drive_to_end(client)
    assert (status, headers["connection"]) == (200, "close")


def test_a_request_in_single_octets(site: Fixture) -> None:
    client = site.client()
    for octet in b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r":
        client.send(bytes([octet]))
        site.loop.turn(0.01)
        assert not client.responses()
    assert site.ask(b"\n", client)[0] == 200


def test_a_half_closed_client_gets_its_answer(site: Fixture) -> None:
    client = site.client()
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert [status for status, _, _ in site.drive_to_end(client)] == [200]


def test_a_fault_of_a_page_is_500_and_told_to_the_master(site: Fixture) -> None:
    def fail() -> dict[str, object]:
        raise ZeroDivisionError("a secret")

    site.status = fail
    client = site.client()
    client.send(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises(ZeroDivisionError):
        site.drive(lambda: client.is_ended)
    ((status, _, body),) = site.drive_to_end(client)
    assert (status, body) == (500, b"internal fault\n")
    assert site.get("/healthz")[0] == 200


def test_close_ends_everything(site: Fixture) -> None:
    clients = [site.client() for _ in range(3)]
    site.drive(lambda: site.exporter.connection_count == 3)
    site.exporter.close()
    site.is_closed = True
    site.drive(lambda: all(client.is_ended for client in clients))
    assert site.exporter.connection_count == 0
    with pytest.raises(ConnectionRefusedError):
        Client(site.address)


def test_the_number_of_requests_on_a_connection_is_bounded(site: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter_module, "MAX_REQUESTS", 3)
    client = site.client()
    client.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
    responses = site.drive_to_end(client)
    assert [status for status, _, _ in responses] == [200] * 3
    assert [headers.get("connection") for _, headers, _ in responses] == [None, None, "close"]


def test_one_that_retires_answers_who_is_there_and_takes_nobody_new(site: Fixture) -> None:
    kept, fresh = site.client(), site.client()
    assert site.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", kept)[0] == 200
    site.drive(lambda: site.exporter.connection_count == 2)
    site.exporter.retire()
    site.drive(lambda: kept.is_ended)
    assert not kept.is_reset
    status, headers, _ = site.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", fresh)
    assert (status, headers["connection"]) == (200, "close")
    site.drive(lambda: fresh.is_ended)
    assert not fresh.is_reset
    with pytest.raises(ConnectionRefusedError):
        site.client()
