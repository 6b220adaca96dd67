"""The face of checks: what a check is, what it is made from, what it is asked and what it may answer.

A check is a class with a name in the configuration (`smtpd.policy.registry`), made once in each worker for each [[policy.check]]
from its own settings. Its `ask` is called for each stage that it names. When it is called, whether it is called at all, how long
it may take and what becomes of its failures is the pipeline's (`smtpd.policy.pipeline`), so a check knows none of it: it raises.
Owns no state. docs/own-checks.md is the same for whoever writes one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar

from smtpd.log.maillog import MailLog
from smtpd.mail.verdict import Verdict
from smtpd.metrics._cells import Cells
from smtpd.metrics.slab import CellIndex
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.net.side import SideThread
from smtpd.policy.question import Client, Content, Question, TlsFacts
from smtpd.settings import Settings as WholeSettings
from smtpd.settings.section import Section

__all__ = [
    "BODY", "CONNECT", "DATA", "HELO", "MAIL", "RCPT", "STAGES",
    "Answer", "Check", "CheckHost", "Client", "Content", "Pause", "Question", "TlsFacts",
]  # fmt: skip
CONNECT, HELO, MAIL, RCPT, DATA, BODY = "connect", "helo", "mail", "rcpt", "data", "body"
STAGES = (CONNECT, HELO, MAIL, RCPT, DATA, BODY)  # in the order in which a session passes them


class Pause:
    """An answer of a plain function: wait, without a thread, then go on as `then(has_talked)` says: no objection or a verdict.

    `wait_s` seconds. `teaser` is sent first (octets with CRLF, at connect only). `has_talked`: the client has sent something
    meanwhile, which nobody has read yet."""

    __slots__ = ("teaser", "then", "wait_s")

    def __init__(self, wait_s: float, then: Callable[[bool], Verdict | None], teaser: bytes = b"") -> None:
        self.wait_s = wait_s
        self.then = then
        self.teaser = teaser


Answer = Verdict | None | Pause | Awaitable[Verdict | None]


class CheckHost:
    """The worker that checks live in. All of it belongs to the loop thread; from a coroutine `loop.post(host.log.info, ...)`.

    `settings` are the whole configuration. `cells` and `index` count, for metrics of a check's own that are in the catalogue.
    `name` is the check's instance in the configuration: what metrics, log lines and messages call it.
    """

    __slots__ = ("cells", "files", "hostname", "index", "log", "loop", "name", "settings", "side", "slot")

    def __init__(
        self,
        name: str,
        loop: Loop,
        side: SideThread,
        files: FilesThread,
        log: MailLog,
        cells: Cells,
        index: CellIndex,
        settings: WholeSettings,
        slot: int = 0,
    ) -> None:
        self.name = name
        self.loop = loop
        self.side = side
        self.files = files
        self.log = log
        self.cells = cells
        self.index = index
        self.settings = settings
        self.hostname = settings.hostname
        self.slot = slot


class Check:
    """Base of all checks. `stages` are where it is asked; an instance may narrow them in `__init__`, by its settings.

    `Settings` is its section of the configuration; `name`, `label`, `stages` and what the pipeline does by itself are not in it.
    `reason` is the label of smtpd_rejections_total for what `on_error` refuses, `timeout_s` the time limit where the file names
    none. `skips_trusted`: policy.trusted and the listener's exempt networks are not asked about. `is_independent`: its
    questions may run beside those of its neighbours that have to ask too; False for what must see the changes of those before.
    """

    Settings: ClassVar[type[Section]] = Section
    stages: tuple[str, ...] = ()
    skips_trusted: ClassVar[bool] = False
    is_independent: ClassVar[bool] = True
    reason: ClassVar[str] = "other"
    timeout_s: ClassVar[float] = 10.0

    def __init__(self, settings: Any, host: CheckHost) -> None:
        """`settings` is a `Settings`. Raises StartupError: the worker doesn't start, and a reload changes nothing."""
        self.settings = settings
        self.host = host

    @classmethod
    def find_faults(cls, settings: Any, whole: WholeSettings) -> Iterable[tuple[str, str]]:
        """(key, what is wrong) although each key by itself is right: for `smtpd check` and each start. Key "" is the check."""
        return ()

    def ask(self, question: Question) -> Answer:
        """No objection (None), or a verdict. A plain function answers from memory, on the loop thread, in microseconds; what it
        returns may also be an awaitable, which then runs on the side thread. An `async def` always runs there, within the check's
        time limit: it is cancelled when the limit is over or the client is gone. Whatever is raised becomes `on_error`."""
        raise NotImplementedError

    def end_transaction(self, memory: dict[str, Any]) -> None:
        """A transaction of this session is over, however it ended. Loop thread; not called if `memory` was never asked for."""

    def end_session(self, memory: dict[str, Any]) -> None:
        """The session is over. Loop thread; not called if `memory` was never asked for."""

    def close(self) -> None:
        """The worker ends; the side thread still runs. Loop thread."""
