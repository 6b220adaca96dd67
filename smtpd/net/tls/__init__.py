"""TLS: the engine that a stream drives, and the contexts for both roles."""
