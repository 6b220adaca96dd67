"""The scenario file of `smtpd sink` as structs: who gets which replies, when and how late. `smtpd.sink.scenario` reads it."""

from typing import Annotated

from smtpd.settings.gateway import EHLO_KEYWORDS
from smtpd.settings.key import Key
from smtpd.settings.section import DAY_S, TIB, Section

STAGES = (
    "connect", "helo", "ehlo", "lhlo", "mail", "rcpt", "data", "end", "rset", "noop", "vrfy", "expn", "help", "quit",
    "starttls", "auth", "xclient", "etrn",
)  # fmt: skip
STAY, CLOSE, RESET = "stay", "close", "reset"


class ActSettings(Section, frozen=True, kw_only=True):
    """What happens."""

    reply: Annotated[
        str,
        Key("This instead; 421 ends the connection", kind="refusal", empty="what the command gets", example='"450 4.2.0 Busy"'),
    ] = ""
    then: Annotated[
        str,
        Key(
            "The connection after that: kept, closed in order, or reset (without a reply: at once)", choices=(STAY, CLOSE, RESET)
        ),
    ] = STAY
    delay: Annotated[
        str, Key("Wait before anything is said", kind="latency", empty="no delay", example='"lognormal 200 ms sigma 0.8"')
    ] = ""
    hold: Annotated[
        str, Key("Having answered, read nothing for so long", kind="latency", empty="read on", example='"uniform 1 s to 5 s"')
    ] = ""
    cut: Annotated[
        int,
        Key(
            "At data: answer 354, and do what `reply` and `then` say after so much content",
            kind="size", least=1, most=TIB, zero="not within the content",
        ),
    ] = 0  # fmt: skip


class OutcomeSettings(ActSettings, frozen=True, kw_only=True):
    """One of the things that may happen, drawn by weight."""

    weight: Annotated[float, Key("How often, beside the others' weights", least=0.0, most=1e9)] = 1.0


class RuleSettings(ActSettings, frozen=True, kw_only=True):
    """When something happens, and what. Rules are looked at in the order of the file: delays add up, and the first rule that
    replies, ends the connection or cuts is the last."""

    name: Annotated[str, Key("For the reader", kind="name", empty="none")] = ""
    at: Annotated[list[str], Key('Where; "end" is the end of a mail\'s content', choices=STAGES)]
    domains: Annotated[
        list[str],
        Key('Of the recipient (at mail: of the sender; at data and end: of any recipient); ".example.org" for all below one',
            kind="route_domain", absent="any", example='["example.org"]'),
    ] = []  # fmt: skip
    percent: Annotated[float, Key("Of the times that the rest applies", least=0.0, most=100.0)] = 100.0
    connections: Annotated[float, Key("Percent of connections that the rule is for", least=0.0, most=100.0)] = 100.0
    after_mails: Annotated[int, Key("Only after so many mails on the connection", least=0, most=1_000_000_000)] = 0
    greylist: Annotated[
        float,
        Key("At rcpt: only until client, sender and recipient come again after so long", kind="duration", least=0.001, most=DAY_S,
            zero="no greylist"),
    ] = 0.0  # fmt: skip
    outcome: list[OutcomeSettings] = []


class ScenarioSettings(Section, frozen=True, kw_only=True):
    """The whole file."""

    seed: Annotated[int, Key("Of all that is drawn; --seed wins", least=0, most=1 << 62, zero="another one each time")] = 0
    hide: Annotated[list[str], Key("EHLO keywords that are not offered", choices=EHLO_KEYWORDS)] = []
    rule: list[RuleSettings] = []
