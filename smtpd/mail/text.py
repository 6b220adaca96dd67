"""Wire octets as text for people and for JSON. Pure."""


def text_of(octets: bytes) -> str:
    """Return wire octets as text; what isn't UTF-8 becomes \\xNN."""
    return octets.decode("utf-8", "backslashreplace")
