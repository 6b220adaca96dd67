"""What a worker is given by the master: everything it needs to serve, made before the fork and inherited by
it.

Also the words on the channel between them (SOCK_SEQPACKET, one JSON object a packet). The worker says
`{"is": "ready"}` when it accepts, `{"is": "draining"}`, `{"is": "finished"}` to have the server stopped,
or `{"is": "failed", "text": …, "exit_code": …}`.
The master says `{"do": "listeners", "slot": n, "names": […]}` with one descriptor (SCM_RIGHTS) per name, in
order: a slot was added (TTIN); and `{"do": "serve", "slots": […]}`: accept from these slots at once, your
own and those whose worker was retired (TTOU); and `{"do": "pause"}`: accept what waits and then no more, to which the answer
is `{"is": "paused"}`, until `{"do": "resume"}`. The channel's end means that the master is gone: close the listeners in the
same turn.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass

from smtpd.limits._clients import ClientTable
from smtpd.limits.board import PressureBoard
from smtpd.metrics.slab import CellIndex, Slabs
from smtpd.net.hop_table import HopTable
from smtpd.net.listeners import ListenerSockets
from smtpd.settings import Settings


@dataclass(frozen=True, slots=True)
class WorkerBoot:
    """`slot` is the worker's number and its label in metrics, `bank` its row set in shared memory."""

    slot: int
    bank: int
    generation: int  # counts reloads; workers of an older one are draining
    settings: Settings
    listeners: list[ListenerSockets]
    slabs: Slabs
    hops: HopTable
    clients: ClientTable
    board: PressureBoard
    cells: CellIndex
    channel: socket.socket
    serves: tuple[int, ...]  # slots whose sockets this worker accepts from at once; starts with `slot`
    is_paused: bool = False  # accept nothing until "resume"
