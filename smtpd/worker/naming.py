"""Names of clients by DNS, for the log, Received and checks: known ones at once, others found out beside the session.

Never delays a greeting or a command: until DNS has answered, a client is "unknown" as it was, in its first log lines too. Only a
name that leads back to the address is taken. Raises nothing; what DNS can't tell leaves the client unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from smtpd.net.dns_records import DnsRecords
from smtpd.net.side import SideThread
from smtpd.policy.dns.asking import FromMemory, FromServers, NotKnownError, answer_from_memory
from smtpd.policy.dns.client_name import ClientName, find_client_name
from smtpd.policy.inspection import Inspection
from smtpd.proto.dialogue import Peer

if TYPE_CHECKING:
    from smtpd.worker.connection import Connection

_QUESTIONS = 3  # one after the other at most: a PTR, addresses, and waiting for a place


class ClientNames:
    """One for each worker; `timeout_s` is that of one question. Belongs to the loop thread."""

    def __init__(self, side: SideThread, records: DnsRecords, timeout_s: float) -> None:
        self._side = side
        self._memory = FromMemory(records)
        self._servers = FromServers(records)
        self._timeout_s = timeout_s * _QUESTIONS

    def recall(self, peer: Peer) -> bool:
        """Give a new peer its name if that is known; returns False when DNS has to be asked."""
        try:
            found = answer_from_memory(find_client_name(self._memory, peer.address))
        except NotKnownError:
            return False
        if found.name:
            peer.name = found.name
        return True

    def find(self, connection: Connection, peer: Peer) -> None:
        """Ask DNS; the client gets its name when the answer comes, if the connection is still about it then."""
        servers = self._servers

        def done(found: ClientName | None, error: BaseException | None) -> None:
            if found is not None and found.name and connection.session.peer is peer:
                peer.name = found.name
                connection.client = peer.label
                policy = connection.session.policy
                if isinstance(policy, Inspection):
                    policy.client.name = peer.name

        self._side.ask(lambda: find_client_name(servers, peer.address), done, self._timeout_s)
