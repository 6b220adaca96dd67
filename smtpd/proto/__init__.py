"""The SMTP protocol without socket, clock, file, log or counter: the session, its states, its replies."""
