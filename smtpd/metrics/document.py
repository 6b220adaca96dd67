"""Writes docs/metrics.md from the catalogue: `python -m smtpd.metrics.document > docs/metrics.md`."""

from __future__ import annotations

import sys

from smtpd.metrics.catalogue import CHECKS, GAUGE, HISTOGRAM, LISTENERS, MAX, METRICS, MIN, ROUTES, RULERS, Label, Metric

_INTRODUCTION = """\
# Metrics

<!-- Generated from smtpd/metrics/catalogue.py by `python -m smtpd.metrics.document`; don't edit. -->

`/metrics` on the address of `[metrics]` shows these, in Prometheus' text format or OpenMetrics, gzipped where the scraper takes
it. Beside it are `/healthz` (200 while the master lives), `/readyz` (200 while every worker serves and the spool can be written,
else 503 and why) and `/status` (JSON).

Values are sums over all workers. A counter never goes down while the master lives, whatever happens to workers; a gauge ends with
its worker. Every series that the configuration makes possible is there from the start with 0, so `rate()` sees the first event.
Labels have only the values listed here, or names from the configuration; never an address, a domain or anything a client sent.
"""
_FILLED = {
    LISTENERS: "`name` of each `[[listener]]`",
    ROUTES: "`name` of each `[[route]]`",
    CHECKS: "`name` of each `[[policy.check]]`",
}
_MASTERS = {
    "worker": "number of the worker, from 0; a restarted one keeps it",
    "certificate": "file name of the certificate",
    "version": "version of smtpd",
}
_MERGED = {MAX: "The greatest of all workers' values.", MIN: "The least of all workers' values."}


def document() -> str:
    """Return the text of docs/metrics.md."""
    return "\n".join([_INTRODUCTION, *map(_section, METRICS)])


def _section(metric: Metric) -> str:
    lines = [f"## {metric.name}", "", f"{metric.kind.capitalize()}. {metric.help}."]
    if metric.kind == GAUGE and metric.merge in _MERGED:
        lines[-1] += f" {_MERGED[metric.merge]}"
    labels = metric.labels + ((Label("worker"),) if metric.is_per_worker else ())
    if labels:
        lines += ["", *(f"- `{label.name}`: {_values(label)}" for label in labels)]
    if metric.kind == HISTOGRAM:
        bounds = " ".join(f"{bound:g}" if bound < 1e6 else f"{bound:.0f}" for bound in RULERS[metric.ruler])
        lines += ["", f"Buckets: {bounds}"]
    return "\n".join([*lines, ""])


def _values(label: Label) -> str:
    if label.filled_by:
        return _FILLED[label.filled_by]
    return " ".join(f"`{value}`" for value in label.values) or _MASTERS[label.name]


if __name__ == "__main__":
    sys.stdout.write(document())
