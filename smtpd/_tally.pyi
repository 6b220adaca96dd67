"""What a session did, as numbers that cost no object each: pairs of verb and reply code (see `proto.dialogue.Dialogue`)."""

from typing import final

@final
class Tally:
    """A short list of ints."""

    count: int
    def add(self, pair: int) -> int: ...
    def at(self, position: int) -> int:
        """Return a pair; IndexError when there are not so many."""
    def clear(self) -> None: ...

@final
class PairCounts:
    """How often each pair came, for the few pairs that one session has."""

    def add(self, pair: int) -> int: ...
    def as_dict(self) -> dict[int, int]:
        """Return the counts by pair, in the order in which the pairs came first."""

@final
class PairCells:
    """The cells that count a pair's reply and command, by pair."""

    def put(self, pair: int, reply: int, command: int) -> bool:
        """Remember a pair; False: there is no room after 384 of them."""
    def find(self, pair: int) -> int:
        """Return the place of a pair, -1 when it was not put yet."""
    def reply_at(self, place: int) -> int:
        """Return the reply's cell."""
    def command_at(self, place: int) -> int:
        """Return the command's cell, as it was put."""
