"""What a scrape sees: the catalogue, filled with the sums of all workers that live or lived, and the master's own values.

`SlabCollector.registry` is a registry of its own (none of prometheus_client's process metrics). Reads only; a scrape costs the
workers nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString

import smtpd
from smtpd.metrics.catalogue import COUNTER, GAUGE, MAX, METRICS, RULERS, SUM, Metric
from smtpd.metrics.slab import CellIndex, Slabs

Labels = tuple[str, ...]
_BOUND_TEXTS = tuple([*map(floatToGoString, bounds), "+Inf"] for bounds in RULERS)


class MasterGauges:
    """Values that the master sets itself, by metric name and label values."""

    def __init__(self, version: str = smtpd.__version__) -> None:
        self.values: dict[str, dict[Labels, float]] = {metric.name: {} for metric in METRICS if metric.is_masters}
        self.values["smtpd_build_info"][(version,)] = 1.0
        self._restarts: dict[int, tuple[int, int]] = {}  # by slot: counted before, counted by the present owner of the slot

    def worker(self, slot: int, is_up: bool, restarts: int) -> None:
        """A slot's state; `restarts` since the slot was made. When it starts again at 0, counting goes on where it was."""
        before, last = self._restarts.get(slot, (0, 0))
        if restarts < last:
            before += last
        self._restarts[slot] = before, restarts
        self.values["smtpd_worker_up"][(str(slot),)] = float(is_up)
        self.values["smtpd_worker_restarts_total"][(str(slot),)] = float(before + restarts)

    def retire_workers(self, count: int) -> None:
        """Only the first `count` slots are in use: the others' `up` ends, what they counted stays."""
        up = self.values["smtpd_worker_up"]
        for labels in [labels for labels in up if int(labels[0]) >= count]:
            del up[labels]

    def reload(self, is_success: bool) -> None:
        """The configuration was read; with success it is in effect from now on."""
        self.values["smtpd_config_last_reload_success"][()] = float(is_success)
        if is_success:
            self.values["smtpd_config_last_reload_timestamp_seconds"][()] = time.time()

    def certificates(self, expiries_s: Mapping[str, float]) -> None:
        """When each certificate in use expires, Unix time, by the file's name; those of before are gone."""
        self.values["smtpd_tls_certificate_expiry_timestamp_seconds"] = {(name,): time_s for name, time_s in expiries_s.items()}


class SlabCollector(Collector):
    """Sums banks on each scrape."""

    def __init__(self, slabs: Slabs, index: CellIndex, gauges: MasterGauges) -> None:
        self._slabs = slabs
        self._index = index
        self._gauges = gauges
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)

    def describe(self) -> Iterable[Family]:
        """Nothing to compare: no other collector is in this registry."""
        return []

    def collect(self) -> Iterator[Family]:
        scrape = Scrape(self._slabs, self._index)
        for metric in METRICS:
            family = _make_family(metric)
            if metric.is_masters:
                for labels, value in sorted(self._gauges.values[metric.name].items()):
                    _add(family, metric, labels, [value])
            elif metric.is_per_worker:
                for slot in scrape.slots:
                    self._add_series(family, metric, scrape, slot)
            else:
                self._add_series(family, metric, scrape, None)
            yield family

    def _add_series(self, family: Family, metric: Metric, scrape: Scrape, slot: int | None) -> None:
        own = () if slot is None else (str(slot),)
        for labels, first in self._index.series(metric):
            values = scrape.gauge(metric, first, slot) if metric.kind == GAUGE else scrape.counts(metric, first, slot)
            if values:
                _add(family, metric, labels + own, values)


class Scrape:
    """One look at all banks: the sums of counters over everything, by slot too, and each living row for gauges."""

    def __init__(self, slabs: Slabs, index: CellIndex) -> None:
        self._live = list(slabs.live_rows())
        self._total: list[float] = []
        self._by_slot: dict[int, list[float]] = {}
        for slot, row in [*slabs.retired_rows(), *self._live]:
            self._by_slot[slot] = _sum_rows(self._by_slot.get(slot, []), row)
        for row in self._by_slot.values():
            self._total = _sum_rows(self._total, row)
        self._total += [0.0] * (index.size - len(self._total))
        self.slots = sorted(self._by_slot)

    def counts(self, metric: Metric, first: int, slot: int | None) -> list[float]:
        """Return the cells of a counter or histogram; [] when the slot never had them."""
        size = 1 if metric.kind == COUNTER else 2 + len(RULERS[metric.ruler])
        cells = (self._total if slot is None else self._by_slot[slot])[first : first + size]
        return cells if len(cells) == size else []

    def gauge(self, metric: Metric, first: int, slot: int | None) -> list[float]:
        """Return the merged value of a gauge in a list, [] when there is none: the least of nothing."""
        values = [
            row[first] for owner, row in self._live if (slot is None or slot == owner) and first + 1 < len(row) and row[first + 1]
        ]
        if metric.merge == SUM:
            return [sum(values)]
        if metric.merge == MAX:
            return [max(values, default=0.0)]
        return [min(values)] if values else []


def _sum_rows(one: list[float], other: list[float]) -> list[float]:
    if len(one) == len(other):
        return list(map(float.__add__, one, other))
    return [a + b for a, b in zip_longest(one, other, fillvalue=0.0)]


def _make_family(metric: Metric) -> Family:
    labels = [label.name for label in metric.labels] + (["worker"] if metric.is_per_worker else [])
    if metric.kind == COUNTER:
        return CounterMetricFamily(metric.name, metric.help, labels=labels)
    if metric.kind == GAUGE:
        return GaugeMetricFamily(metric.name, metric.help, labels=labels)
    return HistogramMetricFamily(metric.name, metric.help, labels=labels)


def _add(family: Family, metric: Metric, labels: Labels, values: list[float]) -> None:
    if isinstance(family, HistogramMetricFamily):
        counted = 0.0
        buckets = []
        for bound, count in zip(_BOUND_TEXTS[metric.ruler], values[1:], strict=True):
            counted += count
            buckets.append((bound, counted))
        family.add_metric(labels, buckets, sum_value=values[0])
    elif isinstance(family, CounterMetricFamily | GaugeMetricFamily):
        family.add_metric(labels, values[0])
