"""smtpd: an inbound SMTP gateway. Start reading at docs/architecture.md; the entry point is `smtpd.cli.main`."""

__version__ = "0.1.0"
