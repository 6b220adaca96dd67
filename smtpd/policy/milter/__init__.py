"""Milter: the mail filters of Sendmail and Postfix, asked over a socket while the client waits."""
