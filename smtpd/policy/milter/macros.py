"""Macros: what a filter is told beside each event, as Postfix tells it.

Owns which names go with which event by default: Postfix 3.7's milter_*_macros, and client_* which its readers are told to add.
Names are of one character, or longer in braces. The values are the caller's.
"""

from __future__ import annotations

from collections.abc import Mapping

from smtpd.policy.milter import wire
from smtpd.policy.milter.negotiation import MACRO_STAGES, Agreement

STAGE_COMMANDS = {
    "connect": wire.CONNECT, "helo": wire.HELO, "mail": wire.MAIL, "rcpt": wire.RCPT, "data": wire.DATA,
    "end_of_header": wire.END_OF_HEADER, "end_of_data": wire.END_OF_BODY,
}  # fmt: skip

DEFAULTS = {
    "connect": [
        "j", "{daemon_name}", "{daemon_addr}", "{daemon_port}", "v", "_", "{client_name}", "{client_addr}", "{client_port}",
        "{client_ptr}", "{client_resolve}", "{client_connections}",
    ],
    "helo": ["{tls_version}", "{cipher}", "{cipher_bits}", "{cert_subject}", "{cert_issuer}"],
    "mail": [
        "i", "{auth_type}", "{auth_authen}", "{auth_author}", "{mail_addr}", "{mail_host}", "{mail_mailer}", "{client_addr}",
        "{client_name}",
    ],
    "rcpt": ["i", "{rcpt_addr}", "{rcpt_host}", "{rcpt_mailer}"],
    "data": ["i"],
    "end_of_header": ["i"],
    "end_of_data": ["i"],
}  # fmt: skip


class MacroTable:
    """Names for each command: what the filter asked for, else what the configuration says, else DEFAULTS."""

    __slots__ = ("_names",)

    def __init__(self, configured: Mapping[str, list[str]]) -> None:
        self._names = {
            STAGE_COMMANDS[stage]: [name.encode() for name in configured.get(stage) or names] for stage, names in DEFAULTS.items()
        }

    def select(self, command: bytes, agreement: Agreement, values: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """Return (name, value) of those that have a value, by `values` whose keys are normal names."""
        names = self._names.get(command)
        if names is None:
            return []
        asked = agreement.macros.get(MACRO_STAGES[command])
        if asked is not None:
            names = [name if len(name) == 1 or name.startswith(b"{") else b"{" + name + b"}" for name in asked]
        return [(name, values[name]) for name in names if name in values]
