"""Where to listen or connect, as written in the configuration: "127.0.0.1:25", "[::1]:25", "unix:/path".

Host names are not taken: what a server listens on must not depend on a resolver. Raises ValueError only.
"""

import ipaddress

import msgspec

# sun_path of unix(7) without its final NUL
_PATH_BYTES = 107


class Endpoint(msgspec.Struct, frozen=True):
    """`host` is an address in its shortest form without brackets, `port` 0-65535; or `path` of a unix
    socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_unix(self) -> bool:
        return self.path != ""

    @property
    def is_local(self) -> bool:
        """Only this machine can reach it."""
        return self.is_unix or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        if self.is_unix:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """Return the endpoint that `text` names; ValueError says what is wrong with it."""
    if text.startswith("unix:"):
        return Endpoint(path=_checked_path(text[5:]))
    host, colon, port_text = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        hint = "an IPv6 address stands in brackets" if text.count(":") > 1 else "the port is missing"
        raise ValueError(f'{hint}: expected "address:port" or "unix:/path"')
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5 and int(port_text) <= 65535):
        raise ValueError("the port is not a number from 0 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    if host in ("", "*"):
        raise ValueError(f'for all addresses write "0.0.0.0:{port_text}" or "[::]:{port_text}"')
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError("the host is not an IP address (names are not resolved)") from None
    if bracketed != (address.version == 6):
        raise ValueError("brackets are for IPv6 addresses only")
    return Endpoint(host=str(address), port=int(port_text))


def parse_filter_address(text: str) -> Endpoint:
    """Return the endpoint of a filter, which may be written with its family as Postfix and Sendmail do: "inet:127.0.0.1:8891",
    "inet6:[::1]:8891", "unix:/path"; ValueError says what is wrong."""
    family, _, rest = text.partition(":")
    if family not in ("inet", "inet6"):
        return parse_endpoint(text)
    endpoint = parse_endpoint(rest)
    if endpoint.is_unix or (":" in endpoint.host) != (family == "inet6"):
        raise ValueError(f'that is no address of the family "{family}"')
    return endpoint


def _checked_path(path: str) -> str:
    if not path:
        raise ValueError("the path of the socket is missing")
    if not path.isprintable():
        raise ValueError("the path of the socket has control characters")
    if len(path.encode()) > _PATH_BYTES:
        raise ValueError(f"the path of a socket has at most {_PATH_BYTES} bytes")
    return path
