"""Greylisting: the check, the store in SQLite that workers share, and the same in Redis for a fleet."""
