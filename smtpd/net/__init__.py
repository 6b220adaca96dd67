"""The event loop and what hangs on it: streams, listeners, threads that do what blocks. Knows bytes, not mail."""
