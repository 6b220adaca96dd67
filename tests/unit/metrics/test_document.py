"""docs/metrics.md is what the catalogue says; the catalogue is fit for documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from smtpd.metrics.catalogue import BY_NAME, COUNTER, HISTOGRAM, METRICS, RULERS, Metric
from smtpd.metrics.document import document

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == document(), "run: python -m smtpd.metrics.document > docs/metrics.md"


def test_the_page_has_every_metric_and_label_value() -> None:
    sections = dict(re.findall(r"^## (smtpd_\w+)\n(.*?)(?=^## |\Z)", document(), re.MULTILINE | re.DOTALL))
    assert list(sections) == [metric.name for metric in METRICS]
    for metric in METRICS:
        for label in metric.labels:
            assert f"- `{label.name}`:" in sections[metric.name]
            assert all(f"`{value}`" in sections[metric.name] for value in label.values)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_keeps_the_rules_of_names(metric: Metric) -> None:
    assert re.fullmatch(r"smtpd(_[a-z0-9]+)+", metric.name)
    assert (metric.kind == COUNTER) == metric.name.endswith("_total")
    assert (metric.kind == HISTOGRAM) == (metric.ruler >= 0)
    assert metric.help[0].isupper() or metric.help[0].isdigit()
    assert not metric.help.endswith(".")
    assert not (metric.is_masters and metric.is_per_worker)
    names = [label.name for label in metric.labels]
    assert len(set(names)) == len(names)
    for label in metric.labels:
        assert re.fullmatch(r"[a-z_]+", label.name)
        assert len(set(label.values)) == len(label.values)
        assert metric.is_masters or bool(label.values) != bool(label.filled_by)


def test_names_are_unique_and_bounds_ascend() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert all(list(bounds) == sorted(set(bounds)) for bounds in RULERS)


def test_every_verb_of_the_parser_is_a_label_value() -> None:
    from smtpd._parser import VERB_NAMES

    assert set(VERB_NAMES) == set(BY_NAME["smtpd_commands_total"].labels[0].values)


def test_every_code_of_the_replies_is_a_label_value() -> None:
    from smtpd.mail.reply import Reply
    from smtpd.proto import replies

    codes = {str(reply.code) for reply in vars(replies).values() if isinstance(reply, Reply)}
    assert len(codes) > 10
    assert codes <= set(BY_NAME["smtpd_replies_total"].labels[0].values)
