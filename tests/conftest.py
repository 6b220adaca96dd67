"""Settings for all tests: hypothesis without deadlines (no test may depend on time), and the profile of `make fuzz`."""

import pytest
from hypothesis import HealthCheck, settings

from smtpd.compiled import find_stale, find_unbuilt

settings.register_profile("quick", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """An extension older than its source would be tested in its place."""
    if wrong := find_unbuilt() + find_stale():
        raise pytest.UsageError(f"not built, or older than the source: {', '.join(wrong)}; run `make build`")
