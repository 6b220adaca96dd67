"""Passing mail on to next hops by SMTP and LMTP: connections, how many of them, and which next hop is to be trusted."""
