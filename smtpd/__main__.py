"""`python -m smtpd` is the command `smtpd`."""

from smtpd.cli.main import main

if __name__ == "__main__":
    main()
