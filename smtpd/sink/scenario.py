"""Reading a scenario file: all its faults at once, each with file, line and key, or the settings.

The grammar of keys is that of the configuration (`smtpd.config.read`); here is only what contradicts itself.
"""

from __future__ import annotations

from smtpd.config.faults import ConfigError, Fault
from smtpd.config.load import parse_file, placed
from smtpd.config.read import Finding, Path, Reader
from smtpd.settings.scenario import ActSettings, RuleSettings, ScenarioSettings

_WITH_DOMAIN = {"mail", "rcpt", "data", "end"}


def load_scenario(file: str) -> ScenarioSettings:
    """Return what the file says; raises ConfigError with every fault."""
    parsed = parse_file(file)
    if isinstance(parsed, Fault):
        raise ConfigError([parsed])
    document, index = parsed
    reader = Reader()
    settings = reader.read_as(ScenarioSettings, document)
    findings = reader.faults + [
        finding for number, rule in enumerate(settings.rule) for finding in _judge(rule, ("rule", number), reader.bad)
    ]
    if findings:
        raise ConfigError(placed(file, index, findings))
    return settings


def _judge(rule: RuleSettings, path: Path, bad: set[Path]) -> list[Finding]:
    """What is wrong with a rule although each key by itself is right."""
    found: list[Finding] = []

    def fault(key: Path, text: str) -> None:
        if path + key not in bad:
            found.append(Finding(path + key, text))

    if not rule.at:
        fault(("at",), "at least one stage is needed")
    if rule.domains and not _WITH_DOMAIN.issuperset(rule.at):
        fault(("domains",), f"domains are known at {', '.join(sorted(_WITH_DOMAIN))} only")
    if rule.greylist and set(rule.at) != {"rcpt"}:
        fault(("greylist",), 'a greylist is for at = ["rcpt"]')
    if rule.outcome:
        for key in ("reply", "cut"):
            if getattr(rule, key):
                fault((key,), "belongs into [[rule.outcome]] where a rule has those")
        if rule.then != "stay":
            fault(("then",), "belongs into [[rule.outcome]] where a rule has those")
        if not any(outcome.weight > 0 for outcome in rule.outcome):
            fault(("outcome",), "at least one weight must be more than 0")
    elif not rule.greylist and not _does_anything(rule) and not any(key[: len(path)] == path for key in bad):
        fault((), "does nothing: give it a reply, a delay, a hold, a cut, or then")
    acts: list[tuple[Path, ActSettings]] = [((), rule)]
    acts += [(("outcome", number), outcome) for number, outcome in enumerate(rule.outcome)]
    for where, act in acts:
        if act.cut and not {"data"}.issuperset(rule.at):
            fault(where + ("cut",), 'a cut is for at = ["data"]')
        if act.cut and act.then == "stay" and not act.reply.startswith("421"):
            fault(where + ("cut",), 'what is cut has to end: then = "close" or "reset"')
    return found


def _does_anything(act: ActSettings) -> bool:
    return bool(act.reply or act.delay or act.hold or act.cut) or act.then != "stay"
