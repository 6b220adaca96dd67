"""The process that binds, forks, supervises and reports; it knows processes, not mail."""
