"""An ordinary group of mails into SQLite with the GIL given up once (docs/decisions/one-transaction-without-the-gil.md).

Uses the functions of the library that Python's sqlite3 has loaded. Where they can't be found (a Python with SQLite built in and
its names hidden) there is no writer, and all groups are written by statements of Python's connection. A leaf.
"""

import sqlite3

def connect(path: str) -> tuple[sqlite3.Connection, GroupWriter | None]:
    """Open a database without waiting for locks and without implicit transactions, and what writes groups into it.

    Raises sqlite3.Error. Both belong to the calling thread; the writer must be closed before the connection.
    """

class GroupWriter:
    def write(self, mails: list[object], bodies: list[object], removed: list[int]) -> None:
        """Insert mails and bodies and delete mails, in one transaction that is durable on return.

        The lists are flat, as in `Batch`: id, size, spilled, queue_id, envelope of each mail; id, data of each body; ids of
        those that go. Raises sqlite3.Error with its `sqlite_errorcode`: the transaction may then be open, to be rolled back.
        """

    def close(self) -> None:
        """Let go of the statements; harmless when it was done before."""
