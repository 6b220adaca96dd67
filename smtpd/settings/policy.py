"""Checks and overrides in the configuration: what all checks share. The settings of each check stand beside it."""

from typing import Annotated

from smtpd.settings.key import Key
from smtpd.settings.section import TIB, Section


class CheckSettings(Section, frozen=True, kw_only=True):
    """A check of clients, senders, recipients or content; asked in the order of the file. These keys are for every check."""

    name: Annotated[str, Key('Which check, as in "access"; docs/checks.md lists them', kind="name", example='"access"')]
    label: Annotated[
        str,
        Key(
            "What metrics and log call it; needed where a check stands twice",
            kind="name",
            empty="its name",
            example='"access-partners"',
        ),
    ] = ""
    timeout: Annotated[
        float,
        Key("Longest time for an answer", kind="duration", least=0.001, most=300.0, zero="what suits the check, mostly 10 s"),
    ] = 0.0
    on_error: Annotated[
        str,
        Key(
            "When the check fails or takes too long: 451 4.7.1, go on as without it, or 550 5.7.1",
            choices=("tempfail", "accept", "reject"),
        ),
    ] = "tempfail"
    networks: Annotated[list[str], Key("Clients that it is for, none: all", kind="network", example='["192.0.2.0/24"]')] = []
    except_networks: Annotated[list[str], Key("Clients that it is not for", kind="network", example='["192.0.2.7"]')] = []
    listeners: Annotated[list[str], Key("Names of listeners that it is for, none: all", kind="name", example='["mx"]')] = []
    dry_run: Annotated[bool, Key("Ask, log and count, but do nothing that it says")] = False
    own: Section = Section()

    @property
    def instance(self) -> str:
        """What metrics and log call it."""
        return self.label or self.name


class OverrideSettings(Section, frozen=True, kw_only=True):
    """What is different for the recipients of some domains. One mail is for one such class or for none: a recipient of another
    gets 452 4.5.3, and the client sends it again."""

    domains: Annotated[
        list[str], Key('Of the recipient, ".example.org" for all below one', kind="domain", example='["example.org"]')
    ]
    message_size: Annotated[
        int,
        Key("Largest mail; limits.message_size holds as well", kind="size", least=1024, most=TIB, zero="as in limits"),
    ] = 0
    tls_required: Annotated[bool, Key("Take mail by TLS only: 530 5.7.0")] = False
    checks_off: Annotated[
        list[str], Key("Labels of checks that are not asked at rcpt and later", kind="name", example='["greylist"]')
    ] = []
    checks_on: Annotated[
        list[str],
        Key("Labels of checks that are asked at rcpt and later for these domains alone", kind="name", example='["dmarc-strict"]'),
    ] = []
