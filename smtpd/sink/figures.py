"""What a sink has counted, read from the workers' shared counters: for the live table, the summary and the JSON report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from smtpd.metrics.catalogue import BY_NAME
from smtpd.metrics.collector import Scrape
from smtpd.metrics.slab import CellIndex, Slabs

_TAKEN = ("accepted", "discarded")


@dataclass(slots=True)
class Figures:
    """Sums over all listeners, of one worker or of all. `size_bytes` are octets of content of taken mails."""

    connections: int = 0
    active: int = 0
    mails: int = 0
    size_bytes: int = 0
    recipients: int = 0
    mails_refused: dict[str, int] = field(default_factory=dict)  # rejected (5xx), deferred (4xx) at the end of data
    ended: dict[str, int] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    replies: dict[str, int] = field(default_factory=dict)
    rejects: dict[str, int] = field(default_factory=dict)  # by stage
    violations: dict[str, int] = field(default_factory=dict)


def read_figures(slabs: Slabs, index: CellIndex) -> tuple[Figures, dict[int, Figures]]:
    """Return the sums and those of each worker by its slot."""
    scrape = Scrape(slabs, index)
    return _read(scrape, index, None), {slot: _read(scrape, index, slot) for slot in scrape.slots}


def _read(scrape: Scrape, index: CellIndex, slot: int | None) -> Figures:
    def sums(name: str, label: str) -> dict[str, int]:
        metric = BY_NAME[name]
        place = [entry.name for entry in metric.labels].index(label)
        found: dict[str, int] = {}
        for values, first in index.series(metric):
            count = int((scrape.counts(metric, first, slot) or [0.0])[0])
            if count:
                found[values[place]] = found.get(values[place], 0) + count
        return found

    active = BY_NAME["smtpd_connections_active"]
    mails = sums("smtpd_messages_total", "result")
    sizes = sums("smtpd_message_bytes_total", "result")
    recipients = sums("smtpd_recipients_total", "result")
    return Figures(
        connections=sum(sums("smtpd_connections_total", "listener").values()),
        active=int(sum(sum(scrape.gauge(active, first, slot)) for _, first in index.series(active))),
        mails=sum(mails.get(result, 0) for result in _TAKEN),
        size_bytes=sum(sizes.get(result, 0) for result in _TAKEN),
        recipients=sum(recipients.get(result, 0) for result in _TAKEN),
        mails_refused={result: count for result, count in mails.items() if result not in _TAKEN},
        ended=sums("smtpd_sessions_ended_total", "reason"),
        commands=sums("smtpd_commands_total", "command"),
        replies=sums("smtpd_replies_total", "code"),
        rejects=sums("smtpd_rejections_total", "stage"),
        violations=sums("smtpd_protocol_violations_total", "kind"),
    )


def report_of(all_: Figures, workers: dict[int, Figures], **more: Any) -> dict[str, Any]:
    """The JSON report; `more` (times, seed, addresses) comes first. `mails_per_s` is over `busy_s`."""
    busy_s = more.get("busy_s") or 0.0
    return {
        **more,
        "connections": all_.connections,
        "mails": all_.mails,
        "mails_refused": all_.mails_refused,
        "recipients": all_.recipients,
        "bytes": all_.size_bytes,
        "mails_per_s": round(all_.mails / busy_s, 1) if busy_s else 0.0,
        "commands": all_.commands,
        "replies": all_.replies,
        "rejects": all_.rejects,
        "violations": all_.violations,
        "sessions_ended": all_.ended,
        "workers": [
            {
                "worker": slot,
                "connections": figures.connections,
                "mails": figures.mails,
                "bytes": figures.size_bytes,
                "rejects": sum(figures.rejects.values()),
            }
            for slot, figures in sorted(workers.items())
        ],
    }


def summarize(report: dict[str, Any]) -> str:
    """The report in a few lines for people."""
    first = (
        f"smtpd sink: {report['mails']:,} mails ({report['bytes']:,} octets) for {report['recipients']:,} recipients "
        f"on {report['connections']:,} connections in {report['busy_s']:,.1f} s: {report['mails_per_s']:,.0f} mails/s"
    )
    lines = [first]
    for title, key in (
        ("commands", "commands"), ("replies", "replies"), ("rejects by stage", "rejects"), ("mails refused", "mails_refused"),
        ("sessions ended by", "sessions_ended"), ("breaches of protocol", "violations"),
    ):  # fmt: skip
        if report[key]:
            lines.append(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in report[key].items()))
    if len(report["workers"]) > 1:
        lines.append("  mails by worker: " + ", ".join(f"{w['worker']}: {w['mails']:,}" for w in report["workers"]))
    return "\n".join(lines)
