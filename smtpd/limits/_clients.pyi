"""What each client has of the whole host: a table in memory that all workers share, of a fixed size, without locks.

A client is an IPv4 address or an IPv6 /64 (`key_of`). Its row holds, for each rate, a token bucket as one number: the time at
which it will be full again (GCRA, ITU-T I.371; "virtual scheduling"). Connections are counted apart, by bank (the place of one
worker process): only its own process writes there, so they can't be miscounted, and they vanish when the master clears the bank.

How wrong it can be. A row is only given to another client while it has no connection and all its buckets are full, so nothing
is forgotten that mattered; a client that was looked up by another process in that very moment may have one connection of that
process counted on a foreign row until it ends. Two processes that see a new client in the same microsecond may each make
a row for it: then the one of them counts the later connections and the other at most one for each process. When all WAYS rows
of a set are in use, a client has no row and no limits: the table fails open. Which clients share a set they can't know (`seed`).
"""

ROWS: int
WAYS: int  # rows of a set: where one client may be
BANKS: int
RATES: int
CONNECTION_RATE: int
MAIL_RATE: int
RECIPIENT_RATE: int

def key_of(address: str) -> int:
    """Return the number of a client: of an IPv4 address (mapped ones included), or of an IPv6 /64; 0 for what is no address."""

class ClientTable:
    """`fd` is a memory file (memfd), made as long as needed; all processes map the same one, with one random `seed`.

    Times are microseconds of the monotonic clock. A row is a number from `find`; -1 and others out of range are no row, which
    has no limits and counts for the host alone. OSError: no memory to share.
    """

    def __init__(self, fd: int, seed: int) -> None: ...
    def open_bank(self, bank: int) -> None:
        """The master, before it forks the process that counts there. IndexError: there are BANKS of them."""

    def clear_bank(self, bank: int) -> None:
        """The master, when the process that counted there has ended: its connections are no more."""

    def find(self, key: int, now_us: int) -> int:
        """Return the row of a client, entered if it is new; -1: it has none (`key` 0, or its set is full)."""

    def key_at(self, row: int) -> int:
        """Return whose row it is now; 0: nobody's."""

    def connections(self, row: int) -> int:
        """Return the connections of this client to all processes."""

    def host_connections(self) -> int:
        """Return the connections of all clients to all processes."""

    def enter(self, row: int, bank: int) -> None:
        """Count one connection more; called by the bank's own process alone."""

    def leave(self, row: int, bank: int) -> None:
        """One connection has ended."""

    def take(self, row: int, rate: int, now_us: int, interval_us: int, burst: int, count: int) -> bool:
        """Take `count` tokens from a bucket that holds `burst` and gains one each `interval_us`; False: they aren't there, and
        nothing is taken. An interval of 0 is no limit."""

    def lower(self, row: int, rate: int, full_at_us: int) -> None:
        """Let a bucket be full no earlier than at this time: others than this host took from it."""
