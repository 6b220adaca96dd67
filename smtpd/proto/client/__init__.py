"""The client's role of SMTP and LMTP without socket, clock, file, log or counter: passes mail on to a next hop."""
