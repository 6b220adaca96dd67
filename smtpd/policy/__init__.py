"""Who and what is taken: checks that answer with a verdict. Knows sessions and envelopes, not sockets or delivery."""
