"""What a scrape shows: merged gauges, labels of workers, the master's own values, and formats that parsers accept."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from smtpd.metrics.catalogue import METRICS
from smtpd.metrics.collector import MasterGauges, SlabCollector
from smtpd.metrics.slab import FILES, LOOP, SHARD, CellIndex, Slabs


class Fixture:
    """Two workers, one listener, one route."""

    def __init__(self) -> None:
        self.index = CellIndex()
        self.index.prepare(listeners=["mx"], routes=["store"], checks=["dnsbl"])
        self.slabs = Slabs(self.index)
        self.banks = [self.slabs.take_bank(slot) for slot in (0, 1)]
        self.gauges = MasterGauges("1.2.3")
        self.collector = SlabCollector(self.slabs, self.index, self.gauges)

    def samples(self, name: str) -> dict[tuple[str, ...], float]:
        """Label values -> value, of one sample name."""
        return {
            tuple(sample.labels.values()): sample.value
            for family in self.collector.collect()
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def two() -> Fixture:
    return Fixture()


def test_every_metric_of_the_catalogue_is_a_family(two: Fixture) -> None:
    families = {family.name: family for family in two.collector.collect()}
    assert [name.removesuffix("_total") for name in (metric.name for metric in METRICS)] == list(families)
    assert all(family.type == metric.kind for family, metric in zip(families.values(), METRICS, strict=True))


def test_counters_are_there_before_anything_was_counted(two: Fixture) -> None:
    assert two.samples("smtpd_messages_total")["mx", "accepted"] == 0.0
    assert len(two.samples("smtpd_replies_total")) > 20


def test_counters_are_summed_over_workers_and_threads(two: Fixture) -> None:
    number = two.index.counter("smtpd_replies_total", code="250")
    for bank in two.banks:
        for row in (LOOP, SHARD):
            two.slabs.cells(bank, row).add(number, 10 + bank)
    assert two.samples("smtpd_replies_total")["250",] == 42.0


def test_buckets_are_cumulative(two: Fixture) -> None:
    number = two.index.histogram("smtpd_message_size_bytes", listener="mx")
    cells = two.slabs.cells(0, LOOP)
    for size in (100, 5000, 5000, 2**30):
        cells.observe(number, size)
    buckets = two.samples("smtpd_message_size_bytes_bucket")
    assert [buckets["mx", bound] for bound in ("1024.0", "4096.0", "16384.0", "6.7108864e+07", "+Inf")] == [1, 1, 3, 3, 4]
    assert two.samples("smtpd_message_size_bytes_count")["mx",] == 4.0
    assert two.samples("smtpd_message_size_bytes_sum")["mx",] == 10_100 + 2**30


def test_gauges_are_added_or_the_least_or_the_greatest(two: Fixture) -> None:
    queued = two.index.gauge("smtpd_queue_messages", route="store", state="active")
    oldest = two.index.gauge("smtpd_queue_oldest_age_seconds", route="store", state="active")
    free = two.index.gauge("smtpd_spool_free_bytes")
    assert two.samples("smtpd_spool_free_bytes") == {}
    assert two.samples("smtpd_queue_oldest_age_seconds")["store", "active"] == 0.0
    for bank, row, value in ((0, LOOP, 3), (1, FILES, 5)):
        cells = two.slabs.cells(bank, row)
        cells.set(queued, value)
        cells.set(oldest, value)
        cells.set(free, value)
    assert two.samples("smtpd_queue_messages")["store", "active"] == 8.0
    assert two.samples("smtpd_queue_oldest_age_seconds")["store", "active"] == 5.0
    assert two.samples("smtpd_spool_free_bytes") == {(): 3.0}


def test_no_space_left_is_a_value_and_not_a_worker_that_never_looked(two: Fixture) -> None:
    two.slabs.cells(0, LOOP).set(two.index.gauge("smtpd_spool_free_bytes"), 0)
    assert two.samples("smtpd_spool_free_bytes") == {(): 0.0}


def test_gauges_end_with_their_worker(two: Fixture) -> None:
    active = two.index.gauge("smtpd_connections_active", listener="mx")
    two.slabs.cells(0, LOOP).set(active, 7)
    two.slabs.cells(1, LOOP).set(active, 5)
    two.slabs.fold_bank(0)
    assert two.samples("smtpd_connections_active")["mx",] == 5.0


def test_workers_are_labelled_by_slot_whatever_their_bank(two: Fixture) -> None:
    lag = two.index.histogram("smtpd_worker_loop_lag_seconds")
    buffers = two.index.gauge("smtpd_worker_buffer_bytes")
    two.slabs.cells(1, LOOP).observe(lag, 0.25)
    two.slabs.fold_bank(0)
    bank = two.slabs.take_bank(1)  # the next generation of slot 1 beside the draining one
    assert bank == 0
    two.slabs.cells(bank, LOOP).observe(lag, 0.5)
    two.slabs.cells(bank, LOOP).set(buffers, 100)
    assert two.samples("smtpd_worker_loop_lag_seconds_count") == {("0",): 0.0, ("1",): 2.0}
    assert two.samples("smtpd_worker_loop_lag_seconds_sum")["1",] == 0.75
    assert two.samples("smtpd_worker_buffer_bytes")["1",] == 100.0


def test_the_master_says_which_workers_are_up(two: Fixture) -> None:
    two.gauges.worker(0, True, 0)
    two.gauges.worker(1, False, 3)
    assert two.samples("smtpd_worker_up") == {("0",): 1.0, ("1",): 0.0}
    assert two.samples("smtpd_worker_restarts_total") == {("0",): 0.0, ("1",): 3.0}


def test_restarts_do_not_go_down_when_a_slot_is_made_anew(two: Fixture) -> None:
    two.gauges.worker(1, True, 3)
    two.gauges.retire_workers(1)
    assert two.samples("smtpd_worker_up") == {}
    assert two.samples("smtpd_worker_restarts_total") == {("1",): 3.0}
    two.gauges.worker(1, True, 0)
    two.gauges.worker(1, True, 2)
    assert two.samples("smtpd_worker_restarts_total") == {("1",): 5.0}


def test_a_failed_reload_leaves_the_time_of_the_last_good_one(two: Fixture) -> None:
    two.gauges.reload(True)
    when = two.samples("smtpd_config_last_reload_timestamp_seconds")
    assert two.samples("smtpd_config_last_reload_success") == {(): 1.0}
    two.gauges.reload(False)
    assert two.samples("smtpd_config_last_reload_success") == {(): 0.0}
    assert two.samples("smtpd_config_last_reload_timestamp_seconds") == when
    assert when[()] > 1.6e9


def test_build_info_and_certificates(two: Fixture) -> None:
    two.gauges.certificates({"mx1.pem": 2e9})
    assert two.samples("smtpd_build_info") == {("1.2.3",): 1.0}
    assert two.samples("smtpd_tls_certificate_expiry_timestamp_seconds") == {("mx1.pem",): 2e9}


@pytest.mark.parametrize("name", ['in "quotes"', "back\\slash", "ütf-8", "[::1]:25"])
def test_both_formats_are_read_back_as_they_were_meant(two: Fixture, name: str) -> None:
    two.index.prepare(listeners=[name])
    bank = two.slabs.take_bank(2)
    two.slabs.cells(bank, LOOP).add(two.index.counter("smtpd_connections_total", listener=name), 9)
    two.slabs.cells(bank, LOOP).observe(two.index.histogram("smtpd_session_seconds", listener=name), 0.3)
    texts = [
        list(parse_text(generate_latest(two.collector.registry).decode())),
        list(parse_openmetrics(generate_openmetrics(two.collector.registry).decode())),
    ]
    for families in texts:
        found = {(sample.name, sample.labels.get("listener")): sample.value for family in families for sample in family.samples}
        assert found["smtpd_connections_total", name] == 9.0
        assert found["smtpd_session_seconds_sum", name] == 0.3
    assert len(texts[0]) == len(texts[1]) == len(METRICS)
