"""`smtpd sink`: what it listens on, how it is made to behave, what it dumps, counts and shows."""
