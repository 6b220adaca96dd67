"""The parser once more, in plain Python: slow, simple, obviously right. `tests/fuzz` holds `smtpd._parser` to it."""
