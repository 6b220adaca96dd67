"""The compiled scanners once more, in plain Python: slow, simple, obviously right. `tests/fuzz` holds the fast ones to it."""
