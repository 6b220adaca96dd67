"""The benchmark target: the same server, with a spool that keeps nothing and no policy."""
