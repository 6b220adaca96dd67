"""Prometheus' own linter finds nothing to say about the metrics."""

from __future__ import annotations

import subprocess

import pytest
from gateway import Gateway
from peers import require_peer
from prometheus_client import generate_latest

from smtpd.metrics.catalogue import METRICS
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import LOOP, CellIndex, Slabs

pytestmark = pytest.mark.peer("prometheus")


def lint(text: bytes) -> tuple[int, str]:
    promtool = require_peer("prometheus", "promtool")
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=60, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def scrape() -> bytes:
    """Every metric with at least one sample."""
    index = CellIndex()
    index.prepare(listeners=["mx", "[::1]:2525"], routes=["store"], checks=["dnsbl"])
    slabs = Slabs(index)
    cells = slabs.cells(slabs.take_bank(0), LOOP)
    for name in ("smtpd_spool_free_bytes", "smtpd_spool_free_inodes"):
        cells.set(index.gauge(name), 1e9)
    gauges = MasterGauges()
    gauges.worker(0, True, 1)
    gauges.reload(True)
    gauges.certificates({"mx.pem": 2e9})
    return generate_latest(SlabCollector(slabs, index, gauges).registry)


def test_promtool_check_metrics_is_clean() -> None:
    text = scrape()
    assert lint(text) == (0, "")
    samples = {line.partition("{")[0].partition(" ")[0] for line in text.decode().splitlines() if line[0] != "#"}
    suffixes = {"counter": "", "gauge": "", "histogram": "_count"}
    assert {metric.name + suffixes[metric.kind] for metric in METRICS} <= samples


def test_promtool_would_have_found_a_fault() -> None:
    code, text = lint(scrape() + b"# TYPE smtpd_wrong counter\nsmtpd_wrong 1\n")
    assert code != 0
    assert "smtpd_wrong" in text


def test_a_running_gateway_is_clean_too(gateway: Gateway) -> None:
    status, text = gateway.http("/metrics")
    assert status == 200
    assert lint(text) == (0, "")
    assert gateway.metric("smtpd_worker_up") == 2
    assert gateway.metric("smtpd_config_last_reload_success") == 1
