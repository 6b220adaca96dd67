"""Settings for all tests: hypothesis without deadlines (no test may depend on time), and the profile of `make fuzz`.

What programs under test inherit from whoever starts the tests is made the same everywhere.
"""

import signal

import pytest
from hypothesis import HealthCheck, settings

from smtpd.compiled import find_stale, find_unbuilt

settings.register_profile("quick", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """An extension older than its source would be tested in its place."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no server behind, as Ctrl-C does
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell does for what it starts in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if wrong := find_unbuilt() + find_stale():
        raise pytest.UsageError(f"not built, or older than the source: {', '.join(wrong)}; run `make build`")
