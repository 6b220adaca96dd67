"""Settings for all tests: hypothesis without deadlines (no test may depend on time), and the profile of `make fuzz`."""

from hypothesis import HealthCheck, settings

settings.register_profile("quick", deadline=None)
settings.register_profile("long", deadline=None, max_examples=20_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")
