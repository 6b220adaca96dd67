"""A sink's conduct over whole sessions in memory: what options and scenario files make of it, by one seed always the same."""

from __future__ import annotations

import pathlib
from collections import Counter

import pytest
from conducted import CONTENT, DATA, HELLO, MAIL, QUIT, RCPT, Conducted

from smtpd.settings.scenario import STAGES
from smtpd.sink.conduct import SinkConduct, Surroundings
from smtpd.sink.options import Behaviour, option_rules, parse_commands
from smtpd.sink.plan import CONNECT, END, PLACES, Rule, make_plan, rules_of
from smtpd.sink.scenario import load_scenario
from smtpd.sink.shared import SharedCounts, SharedGreylist

EXAMPLES = pathlib.Path(__file__).parents[3] / "conf" / "examples" / "sink"


class Sink:
    """Conducts as one worker makes them, on a clock that the test turns."""

    def __init__(self, rules: list[Rule], seed: int = 1, counts: SharedCounts | None = None, logged: str = "") -> None:
        self.now = 1000.0
        self.notes: list[tuple[str, str]] = []
        self.finished = 0
        self.counts = counts or SharedCounts(4)
        places = frozenset(place for found, _ in parse_commands(logged) for place in found) if logged else frozenset()
        self.around = Surroundings(
            make_plan(seed, rules, (), places), self.counts, SharedGreylist(), 0, lambda: self.now,
            lambda client, text: self.notes.append((client, text)), self._finish,
        )  # fmt: skip

    def _finish(self) -> None:
        self.finished += 1

    def connect(self, address: str = "192.0.2.7", *, is_lmtp: bool = False) -> Conducted:
        return Conducted(SinkConduct(self.around, self.counts.next_connection()), address=address, is_lmtp=is_lmtp)


def by_options(seed: int = 1, **wanted: object) -> Sink:
    return Sink(option_rules(Behaviour(**wanted)), seed)  # type: ignore[arg-type]


def by_example(name: str, seed: int = 1) -> Sink:
    return Sink(rules_of(load_scenario(str(EXAMPLES / f"{name}.toml"))), seed)


def send_mail(run: Conducted, rcpt: bytes = RCPT) -> list[int]:
    """The codes of MAIL, RCPT, DATA, content, as far as it gets; waiting costs nothing here."""
    codes: list[int] = []
    for octets, expected in ((MAIL, 250), (rcpt, 250), (DATA, 354), (CONTENT, 250)):
        replies = run.send(octets)
        while run.waits is not None:
            replies += run.pass_time()
        codes += [int(reply[:3]) for reply in replies]
        if not codes or codes[-1] != expected:
            break
    return codes


def greet(sink: Sink, address: str = "192.0.2.7") -> Conducted:
    run = sink.connect(address)
    while run.waits is not None:
        run.pass_time()
    run.send(HELLO)
    while run.waits is not None:
        run.pass_time()
    run.replies()
    return run


# --- options -------------------------------------------------------------------------------------------------------------


def test_every_stage_of_a_scenario_is_a_place() -> None:
    assert set(STAGES) <= set(PLACES)


def test_commands_are_read_with_percentages() -> None:
    places = parse_commands("connect, RCPT:12.5 .:3%")
    assert places[0] == (frozenset((CONNECT,)), 100.0)
    assert places[1][1] == 12.5
    assert places[2] == (frozenset((END,)), 3.0)


@pytest.mark.parametrize("text", ["", "RCTP", "RCPT:x", "RCPT:101", "RCPT:-1", "RCPT:nan"])
def test_what_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_commands(text)


def test_a_misspelt_command_is_guessed() -> None:
    with pytest.raises(ValueError, match='did you mean "RCPT"'):
        parse_commands("RCTP")


@pytest.mark.parametrize(
    ("wanted", "codes"),
    [
        ({"soft": ("RCPT",)}, [250, 450]),
        ({"hard": ("MAIL",)}, [500]),
        ({"hard": ("DATA",), "hard_reply": "554 5.7.1 No"}, [250, 250, 554]),
        ({"soft": (".",), "soft_reply": "451 4.2.0 Later"}, [250, 250, 354, 451]),
        ({"close": ("RCPT",)}, [250, 421]),
        ({"disconnect": ("DATA",)}, [250, 250]),
        ({"reset": (".",)}, [250, 250, 354]),
        ({"abort_delay": "0"}, [250, 250, 354, 550]),
        ({"disconnect": ("MAIL",), "close": ("MAIL",), "hard": ("MAIL",), "soft": ("MAIL",)}, []),
        ({"hard": ("MAIL",), "soft": ("MAIL",)}, [500]),
    ],
)
def test_each_option_has_its_reply(wanted: dict[str, object], codes: list[int]) -> None:
    run = greet(by_options(**wanted))
    assert send_mail(run) == codes
    assert bool(run.ended) == (wanted.keys() - {"hard", "soft", "hard_reply", "soft_reply"} != set())


def test_delays_of_options_add_up() -> None:
    run = greet(by_options(delays=("DATA:1.5", "DATA:250 ms"), data_delay="1"))
    run.send(MAIL + RCPT + DATA)
    assert run.waits == ("delay", 2.75)
    assert run.pass_time()[-1][:3] == b"354"


def test_the_dice_of_w_give_whole_multiples() -> None:
    sink = by_options(delays=("NOOP:2:60",))
    run = greet(sink)
    waited = []
    for _ in range(200):
        run.send(b"NOOP\r\n")
        assert run.waits is not None
        waited.append(run.waits[1])
        run.pass_time()
    assert {float(seconds) % 2 for seconds in waited} == {0.0}
    assert 4.0 < sum(map(float, waited)) / len(waited) < 6.0  # 2 s / 0.4


def test_a_percentage_is_met_and_depends_on_the_seed_alone() -> None:
    def outcomes(seed: int) -> list[int]:
        sink = by_options(seed, soft=("RCPT:30",))
        return [send_mail(greet(sink))[1] for _ in range(400)]

    first = outcomes(1)
    assert outcomes(1) == first
    assert outcomes(2) != first
    assert 95 < first.count(450) < 145


def test_a_connection_draws_the_same_whatever_the_others_do() -> None:
    def outcomes_of_second(mails_of_first: int) -> list[int]:
        sink = by_options(7, soft=("RCPT:50",))
        first, second = greet(sink), greet(sink)
        for _ in range(mails_of_first):
            send_mail(first)
            first.send(b"RSET\r\n")
        codes = []
        for _ in range(30):
            codes.append(send_mail(second)[1])
            second.send(b"RSET\r\n")
        return codes

    assert outcomes_of_second(0) == outcomes_of_second(5)


def test_commands_are_logged_where_that_is_wanted() -> None:
    sink = Sink([], logged="connect,MAIL,.")
    send_mail(greet(sink))
    assert [text for _, text in sink.notes] == ["connect", "MAIL FROM:<a@example.com>", "."]


# --- limits --------------------------------------------------------------------------------------------------------------


def test_mails_are_taken_up_to_the_number_and_no_further() -> None:
    sink = Sink([], counts=SharedCounts(4, max_mails=3))
    run = greet(sink)
    assert [send_mail(run)[-1] for _ in range(3)] == [250, 250, 250]
    assert sink.finished == 1
    other = greet(sink)
    assert send_mail(other) == [250, 250, 354, 421]
    assert (sink.finished, other.ended, other.mails) == (1, "conduct", 0)


def test_refused_mails_do_not_count() -> None:
    sink = Sink(option_rules(Behaviour(soft=(".",))), counts=SharedCounts(4, max_mails=1))
    assert send_mail(greet(sink))[-1] == 450
    assert sink.finished == 0


def test_sessions_are_counted_when_they_end() -> None:
    sink = Sink([], counts=SharedCounts(4, max_ended=2))
    conducts = [SinkConduct(sink.around, sink.counts.next_connection()) for _ in range(3)]
    for conduct, finished in zip(conducts, (0, 1, 1), strict=True):
        conduct.end()
        assert sink.finished == finished


def test_no_more_sessions_than_the_limit_over_all_workers() -> None:
    counts = SharedCounts(4, max_sessions=3)
    assert [counts.take_session(0), counts.take_session(1), counts.take_session(1)] == [True, True, True]
    assert not counts.take_session(2)
    counts.give_session_back(0)
    assert counts.take_session(2)
    counts.begin_worker(1)  # its worker was killed and a new one starts
    assert [counts.take_session(1), counts.take_session(1), counts.take_session(1)] == [True, True, False]


# --- the examples --------------------------------------------------------------------------------------------------------


def test_gmail_like_is_good_for_20_mails_a_connection() -> None:
    run = greet(by_example("gmail-like"))
    mails = 0
    for _ in range(60):
        codes = send_mail(run)
        if codes == [421]:
            break
        mails += codes == [250, 250, 354, 250]
        run.send(b"RSET\r\n")
        while run.waits is not None:
            run.pass_time()
    assert mails == 20
    assert run.ended == "conduct"


def test_gmail_like_refuses_by_domain() -> None:
    sink = by_example("gmail-like")
    refused = Counter(
        send_mail(greet(sink), b"RCPT TO:<b@" + domain + b">\r\n")[1]
        for domain in (b"gmail.example", b"eu.gmail.example")
        for _ in range(200)
    )
    assert 4 < refused[550] < 25
    others = Counter(send_mail(greet(sink), b"RCPT TO:<b@example.net>\r\n")[1] for _ in range(200))
    assert others[550] == 0
    assert others[452] + others[450] > 0


def test_greylisting_lets_the_same_triple_in_after_five_minutes() -> None:
    sink = by_example("greylisting")
    assert send_mail(greet(sink)) == [250, 450]
    sink.now += 299
    assert send_mail(greet(sink)) == [250, 450]
    sink.now += 1
    assert send_mail(greet(sink)) == [250, 250, 354, 250]
    assert send_mail(greet(sink), b"RCPT TO:<c@example.org>\r\n") == [250, 450]
    assert send_mail(greet(sink, "192.0.2.8")) == [250, 450]


def test_greylisting_looks_at_addresses_and_not_at_parameters() -> None:
    sink = by_example("greylisting")
    codes = []
    for size in (1, 2):
        run = greet(sink)
        run.send(b"MAIL FROM:<a@example.com> SIZE=%d\r\n" % size)
        codes += [int(reply[:3]) for reply in run.send(b"RCPT TO:<b@example.org>\r\n")]
        sink.now += 300
    assert codes == [450, 250]


def test_tarpit_holds_half_of_the_connections_back() -> None:
    sink = by_example("tarpit")
    waits = [sink.connect().waits for _ in range(200)]
    late = [float(wait[1]) for wait in waits if wait is not None]
    assert 80 < len(late) < 120
    assert all(5.0 <= seconds <= 30.0 for seconds in late)
    slow = 0
    for _ in range(50):
        run = greet(sink)
        run.send(b"NOOP\r\n")
        slow += run.waits is not None
    assert 15 < slow < 35


def test_flaky_fails_in_each_of_its_ways() -> None:
    sink = by_example("flaky")
    seen: Counter[str] = Counter()
    for _ in range(1500):
        run = greet(sink)
        if run.ended:
            seen["reset at once" if run.is_reset else "421 at once"] += 1
            continue
        codes = send_mail(run)
        if len(codes) == 3 and codes[-1] == 354 and run.ended:
            seen["no answer to the content"] += 1
        seen[str(codes[-1])] += 1
    assert {"reset at once", "421 at once", "250", "451", "550", "452", "no answer to the content"} <= seen.keys()
    assert seen["250"] > 1000


def test_flaky_cuts_content() -> None:
    sink = by_example("flaky")
    cut = 0
    for _ in range(300):
        run = greet(sink)
        if run.ended or send_mail(run)[:3] != [250, 250, 354] or run.ended:
            continue
        run.send(MAIL + RCPT)
        if run.send(DATA)[-1:] == [b"354 End data with <CR><LF>.<CR><LF>"]:
            run.send(b"x" * 4000)
            cut += bool(run.ended)
    assert 2 < cut < 20


def test_the_rest_of_a_session_is_not_touched_by_a_scenario() -> None:
    run = greet(by_example("greylisting"))
    assert run.send(b"NOOP\r\n" + QUIT) == [b"250 2.0.0 Ok", b"221 2.0.0 Bye"]


# --- several recipients --------------------------------------------------------------------------------------------------


def send_to_many(sink: Sink, count: int) -> list[bytes]:
    """The replies at the end of a mail to so many, in LMTP."""
    run = sink.connect(is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL)
    run.send(RCPT * count + DATA)
    return run.send(CONTENT)


def test_in_lmtp_each_recipient_draws_its_own_reply() -> None:
    sink = by_options(soft=(".:50",))
    replies = send_to_many(sink, 200)
    counts = Counter(reply[:3] for reply in replies)
    assert 60 < counts[b"250"] < 140
    assert counts[b"250"] + counts[b"450"] == 200
    assert replies == send_to_many(by_options(soft=(".:50",)), 200)
    assert replies != send_to_many(by_options(seed=2, soft=(".:50",)), 200)


def test_in_lmtp_a_rule_for_a_domain_is_for_its_recipients_alone(tmp_path: pathlib.Path) -> None:
    (tmp_path / "s.toml").write_text(
        '[[rule]]\nat = ["end"]\ndomains = ["example.net"]\nreply = "552 5.2.2 Full"\ndelay = "2 s"\n'
    )
    run = Sink(rules_of(load_scenario(str(tmp_path / "s.toml")))).connect(is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL)
    run.send(b"RCPT TO:<a@example.net>\r\n" + RCPT + b"RCPT TO:<c@example.net>\r\n" + DATA)
    assert run.send(CONTENT) == []
    assert run.waits == ("delay", 4.0)
    assert [reply[:3] for reply in run.pass_time()] == [b"552", b"250", b"552"]


def test_in_lmtp_a_connection_that_ends_ends_for_all() -> None:
    sink = by_options(reset=(".:30",))
    run = sink.connect(is_lmtp=True)
    run.send(b"LHLO client.example.com\r\n")
    run.send(MAIL)
    run.send(RCPT * 20 + DATA)
    assert run.send(CONTENT) == []
    assert run.is_reset


class Dumped:
    mail_argument = b""
    rcpt_arguments: list[bytes] = []  # noqa: RUF012 - replaced, never changed


def test_a_dump_names_the_recipients_that_were_taken() -> None:
    sink = by_options(hard=("RCPT:50",))
    sink.around.is_dumping = True
    conduct = SinkConduct(sink.around, 1)
    run = Conducted(conduct)
    run.send(HELLO)
    run.send(MAIL)
    taken = []
    for n in range(40):
        argument = b"TO:<u%d@example.org>" % n if n % 3 else b"TO:<u%d@exa mple.org>" % n
        (reply,) = run.send(b"RCPT " + argument + b"\r\n")
        if reply.startswith(b"250"):
            taken.append(argument)
    run.send(DATA)
    dump = Dumped()
    conduct.begin_body(dump)
    assert dump.rcpt_arguments == taken
    assert 5 < len(taken) < 27
