"""Measurements against real peers: `python -m bench.compare` and its neighbours; bench/README.md says what each one shows."""
