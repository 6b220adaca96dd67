"""The report as text for people. Pure; what the target said is escaped."""

from __future__ import annotations

from typing import Any

from smtpd.log.escape import clean_text

_COLUMNS = ("p50", "p90", "p95", "p99", "p99.9", "max")


def render(report: dict[str, Any]) -> str:
    """Return the whole table."""
    mails, maker = report["mails"], report["load_maker"]
    kind = f"open loop, {report['rate_per_s']:g} mails/s" if report["mode"] == "open" else "closed loop"
    parts = [f"{mails['accepted']} accepted"]
    parts += [f"{mails[name]} {name}" for name in ("partial", "failed", "unsent", "resent") if mails[name]]
    lines = [
        f"{report['target']}: {kind}, {_count(report['sessions'], 'session')}, {_count(report['workers'], 'process', 'es')}",
        "",
        f"mails        {', '.join(parts)} in {report['duration_s']:.2f} s",
        f"throughput   {report['throughput_per_s']:.1f} mails/s, {_size(report['octets'] / max(report['duration_s'], 1e-9))}/s",
        f"connections  {report['connections']['opened']} opened"
        + (f", {report['connections']['failed']} failed" if report["connections"]["failed"] else ""),
        f"load maker   {report['cpu_us_per_mail']:.1f} µs of CPU a mail, "
        + "/".join(f"{share:.0%}" for share in maker["cpu_shares"])
        + " of a CPU",
        "",
        f"{'milliseconds':<14}{'count':>9}" + "".join(f"{name:>10}" for name in _COLUMNS),
    ]
    for phase, row in report["latency_ms"].items():
        if row["count"]:
            lines.append(f"{phase:<14}{row['count']:>9}" + "".join(f"{_number(row[name]):>10}" for name in _COLUMNS))
    if report["errors"]:
        lines += ["", f"{'errors':<24}{'count':>9}"]
        for key, count in report["errors"].items():
            lines.append(
                f"{clean_text(key, 60):<24}{count:>9}  {clean_text(report['error_examples'].get(key, ''), 200)}".rstrip()
            )
    if report["gave_up"]:
        lines += ["", f"gave up: {clean_text(report['gave_up'], 200)}"]
    if report["interrupted"]:
        lines += ["", "interrupted before its end"]
    if report["notes"]:
        lines += ["", *(f"note: {clean_text(note, 300)}" for note in report["notes"])]
    return "\n".join(lines)


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{'' if number == 1 else plural}"


def _number(milliseconds: float) -> str:
    if milliseconds >= 100:
        return f"{milliseconds:.0f}"
    return f"{milliseconds:.1f}" if milliseconds >= 10 else f"{milliseconds:.2f}" if milliseconds >= 1 else f"{milliseconds:.3f}"


def _size(octets: float) -> str:
    for unit in ("B", "kB", "MB"):
        if octets < 1000:
            return f"{octets:.1f} {unit}"
        octets /= 1000
    return f"{octets:.1f} GB"
