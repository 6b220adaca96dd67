"""Checks that ask DNS: domains of sender and recipients, a client's name and HELO, lists of clients and domains."""
