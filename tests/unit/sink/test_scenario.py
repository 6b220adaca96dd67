"""Scenario files: all faults at once, each with its line; every example is good."""

from __future__ import annotations

import pathlib

import pytest

from smtpd.config.faults import ConfigError
from smtpd.sink.plan import rules_of
from smtpd.sink.scenario import load_scenario

EXAMPLES = sorted((pathlib.Path(__file__).parents[3] / "conf" / "examples" / "sink").glob("*.toml"))

BAD = """\
sede = 3
hide = ["PIPELINIG"]
[[rule]]
at = ["rcpt", "rctp"]
reply = "250 2.0.0 Ok"
percent = 101.0
[[rule]]
reply = "450 4.2.0 Busy"
[[rule]]
at = ["connect"]
domains = ["example.org"]
greylist = "5 min"
delay = "unifrom 1 s to 2 s"
then = "closed"
[[rule]]
at = ["mail"]
[[rule]]
at = ["data"]
reply = "550 5.0.0 No"
outcome = [
  { wieght = 1 },
  { weight = 0, cut = "1 KiB" },
]
[[rule]]
at = []
cut = "2 KiB"
"""

FAULTS = """\
bad.toml:1: sede: unknown key (did you mean "seed"?)
bad.toml:2: hide: "PIPELINIG" is not one of PIPELINING, SIZE, 8BITMIME, SMTPUTF8, ENHANCEDSTATUSCODES, CHUNKING, LIMITS, DSN, \
STARTTLS \
(did you mean "PIPELINING"?)
bad.toml:4: rule.at: "rctp" is not one of connect, helo, ehlo, lhlo, mail, rcpt, data, end, rset, noop, vrfy, expn, help, quit, \
starttls, auth, xclient, etrn (did you mean "rcpt"?)
bad.toml:5: rule.reply: expected a reply that refuses, such as "450 4.2.0 Mailbox busy", not "250 2.0.0 Ok"
bad.toml:6: rule.percent: expected at most 100, not the number 101.0
bad.toml:7: rule.at: this key is needed
bad.toml:11: rule.domains: domains are known at data, end, mail, rcpt only
bad.toml:12: rule.greylist: a greylist is for at = ["rcpt"]
bad.toml:13: rule.delay: "unifrom 1 s to 2 s" is not a duration such as "2 s", or one of uniform, normal, lognormal, \
exponential, dice and what belongs to it (did you mean "uniform"?)
bad.toml:14: rule.then: "closed" is not one of stay, close, reset (did you mean "close"?)
bad.toml:15: rule: does nothing: give it a reply, a delay, a hold, a cut, or then
bad.toml:19: rule.reply: belongs into [[rule.outcome]] where a rule has those
bad.toml:21: rule.outcome.wieght: unknown key (did you mean "weight"?)
bad.toml:22: rule.outcome.cut: what is cut has to end: then = "close" or "reset"
bad.toml:25: rule.at: at least one stage is needed
bad.toml:26: rule.cut: what is cut has to end: then = "close" or "reset"
"""


def test_all_faults_are_told_at_once_each_with_its_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pathlib.Path("bad.toml").write_text(BAD)
    with pytest.raises(ConfigError) as caught:
        load_scenario("bad.toml")
    assert str(caught.value) + "\n" == FAULTS


@pytest.mark.parametrize(
    ("text", "words"),
    [("rule = 5\n", "expected an array of tables"), ("[[rule]\n", "not TOML"), ('seed = "x"\n', "expected a whole number")],
)
def test_other_shapes_are_told(tmp_path: pathlib.Path, text: str, words: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_scenario(str(file))


def test_a_missing_file_is_told(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        load_scenario(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_good(file: pathlib.Path) -> None:
    assert rules_of(load_scenario(str(file)))


def test_an_outcome_has_its_rules_delay_unless_it_has_its_own(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('[[rule]]\nat = ["end"]\ndelay = "1 s"\noutcome = [{ weight = 3 }, { delay = "5 s", then = "close" }]\n')
    (rule,) = rules_of(load_scenario(str(file)))
    assert [act.delay.first for act in rule.acts if act.delay is not None] == [1.0, 5.0]
    assert rule.bounds == (3.0, 4.0)
