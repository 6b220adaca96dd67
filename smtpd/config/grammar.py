"""The grammar of each kind of text in the file: a function from the text to the value that is kept.

A kind is named in `Key.kind`. The functions raise ValueError with what is wrong, and take text of any
content.
"""

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from smtpd.config.faults import did_you_mean, quote
from smtpd.config.latency import normal_latency
from smtpd.policy.footer import NAMES as FOOTER_NAMES
from smtpd.policy.footer import PLACE as FOOTER_PLACE
from smtpd.settings.endpoint import parse_endpoint, parse_filter_address
from smtpd.settings.rate import parse_rate

_NAME_CHARACTERS = 128
_LINE_CHARACTERS = 200
_PATH_BYTES = 4096
_LOG_WORDS = ("stderr", "syslog", "none")


def check_text(kind: str, text: str) -> str:
    """Return the value that stands for `text`, in its normal form; ValueError says what is wrong."""
    return _CHECKS[kind](text)


def _address(text: str) -> str:
    parse_endpoint(text)
    return text


def _filter_address(text: str) -> str:
    parse_filter_address(text)
    return text


def _macro(text: str) -> str:
    """The name of a milter's macro: "i", or a longer one in braces."""
    bare = text[1:-1] if text.startswith("{") and text.endswith("}") else text
    if bare != "_" and not (bare.isascii() and bare.replace("_", "").isalnum()):
        raise ValueError(f'{quote(text)} is not the name of a macro such as "i" or "{{client_addr}}"')
    return bare if len(bare) == 1 else f"{{{bare}}}"


def _next_hop(text: str) -> str:
    """ "host:port", "[IPv6]:port", "unix:/path" as written, or "mx:" and a domain."""
    if text.startswith("mx:"):
        return "mx:" + (normal_host(text[3:]) if text != "mx:" else "")
    if text.startswith("unix:"):
        parse_endpoint(text)
        return text
    host, colon, port = text.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        raise ValueError(f'{quote(text)} has no port: expected "host:port", "[IPv6]:port", "unix:/path" or "mx:domain"')
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{quote(text)}: the port is not a number from 1 to 65535")
    if host.startswith("[") or host.replace(".", "").isdigit():
        try:
            parse_endpoint(text)
        except ValueError:
            raise ValueError(f"{quote(text)} has no valid IP address before its port") from None
        return text
    return f"{normal_host(host)}:{int(port)}"


def _ip(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address") from None


def _dns_server(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    try:
        endpoint = parse_endpoint(text)
    except ValueError:
        raise ValueError(f'{quote(text)} is not "address", "IPv4:port" or "[IPv6]:port"') from None
    if endpoint.is_unix or not endpoint.port:
        raise ValueError(f'{quote(text)} is not "address", "IPv4:port" or "[IPv6]:port"')
    return str(endpoint)


def _http_address(text: str) -> str:
    if parse_endpoint(text).is_unix:
        raise ValueError('expected "address:port", not a unix socket')
    return text


def normal_network(text: str) -> str:
    """Return a network or address in its shortest form; the host part must be zero."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        try:
            nearest = ipaddress.ip_network(text, strict=False)
        except ValueError:
            raise ValueError(f'{quote(text)} is not a network such as "10.0.0.0/8" or "2001:db8::/32"') from None
        raise ValueError(f'{quote(text)} has host bits set (did you mean "{nearest}"?)') from None
    is_single = network.prefixlen == network.max_prefixlen
    return str(network.network_address) if is_single and "/" not in text else str(network)


def _domain(text: str) -> str:
    if text == "*":
        raise ValueError('"*" would relay for everybody; for any domain on loopback leave the key out')
    return _route_domain(text)


def _route_domain(text: str) -> str:
    if text == "*":
        return text
    if text.startswith("*."):
        raise ValueError(f"{quote(text)} is not a domain (did you mean {quote(text[1:])} for all below it?)")
    if text.startswith("."):
        return "." + normal_host(text[1:])
    return normal_host(text)


def normal_host(text: str) -> str:
    """Return a domain as A-labels in lower case."""
    host = text.removesuffix(".")
    if not host.isascii():
        host = _a_labels(host)
    host = host.lower()
    labels = host.split(".")
    if not host or len(host) > 253 or not all(map(_is_label, labels)) or labels[-1].isdigit():
        raise ValueError(f"{quote(text)} is not a domain")
    return host


def _is_label(label: str) -> bool:
    return (
        0 < len(label) <= 63
        and label.isascii()
        and label.replace("-", "").replace("_", "").isalnum()
        and not label.startswith("-")
        and not label.endswith("-")
    )


def _a_labels(text: str) -> str:
    import idna  # here: its tables take longer to load than all the rest of this package

    try:
        return idna.encode(text, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        raise ValueError(f"{quote(text)} is not a domain") from None


def _hostname(text: str) -> str:
    host = normal_host(text)
    if "_" in host:
        raise ValueError(f"{quote(text)}: a host name has no underscore")
    return host


def _mailbox(text: str) -> str:
    local, at, domain = text.rpartition("@")
    if not at:
        raise ValueError(f'{quote(text)} is not a mailbox such as "postmaster@example.org"')
    if not local.isascii() or not local.isprintable() or any(c in local for c in ' "(),:;<>@[\\]'):
        raise ValueError(f"{quote(text)}: the local part needs quotes or is not ASCII, which is not taken here")
    if len(local) > 64 or not all(local.split(".")):
        raise ValueError(f"{quote(text)} is not a mailbox")
    return f"{local}@{normal_host(domain)}"


def _name(text: str) -> str:
    if not text or len(text) > _NAME_CHARACTERS or not text.isprintable() or '"' in text or "\\" in text:
        raise ValueError(f"{quote(text)} is not a name: 1 to {_NAME_CHARACTERS} printable characters")
    return text


def _syslog_name(text: str) -> str:
    plain = text.replace("-", "").replace("_", "").replace(".", "").replace("/", "")
    if not text.isascii() or not plain.isalnum() or len(text) > 32:
        raise ValueError(f'{quote(text)} is not a program name: 1 to 32 of letters, digits and "-_./"')
    return text


def _rate(text: str) -> str:
    try:
        return str(parse_rate(text))
    except ValueError as error:
        raise ValueError(f"{quote(text)}: {error}") from None


def _line(text: str) -> str:
    if not text.isascii() or not text.isprintable() or len(text) > _LINE_CHARACTERS:
        raise ValueError(f"expected at most {_LINE_CHARACTERS} printable ASCII characters, not {quote(text)}")
    return text


def _footer(text: str) -> str:
    for line in text.split("\n"):
        _line(line)
    for name in FOOTER_PLACE.findall(text):
        if name not in FOOTER_NAMES:
            raise ValueError(f"{quote('{' + name + '}')} is not known{did_you_mean(name, FOOTER_NAMES)}")
    return text


def _rule(text: str) -> str:
    if not text.strip():
        raise ValueError("the rule is empty")
    return text.strip()


def _refusal(text: str) -> str:
    line = _line(text)
    if line[:1] not in "45" or not line[:3].isdigit() or len(line) < 3 or line[3:4] not in ("", " "):
        raise ValueError(f'expected a reply that refuses, such as "450 4.2.0 Mailbox busy", not {quote(text)}')
    return line


def _redis_url(text: str) -> str:
    """redis://[[user]:password@]host[:port][/database], rediss:// for TLS, unix:///path. The text is never repeated: it may
    hold a password."""
    scheme, _, rest = text.partition("://")
    if scheme not in ("redis", "rediss", "unix") or not rest or not text.isprintable() or " " in text:
        raise ValueError('expected a URL such as "redis://192.0.2.9:6379/0", "rediss://..." or "unix:///run/redis.sock"')
    try:
        parts = urlsplit(text)
        is_sound = bool(parts.path if scheme == "unix" else parts.hostname) and (scheme == "unix" or parts.port != 0)
    except ValueError:
        is_sound = False
    if not is_sound:
        raise ValueError("the URL names no server")
    return text


def _path(text: str) -> str:
    if not text:
        raise ValueError("the path is empty")
    if "\0" in text or len(text.encode()) > _PATH_BYTES:
        raise ValueError(f"{quote(text)} is not a path")
    return text


def _log_destination(text: str) -> str:
    if text in _LOG_WORDS:
        return text
    if "/" not in text:
        hint = did_you_mean(text, _LOG_WORDS)
        raise ValueError(f'{quote(text)} is not one of {", ".join(_LOG_WORDS)}, nor a path with a "/"{hint}')
    return _path(text)


_CHECKS: dict[str, Callable[[str], str]] = {
    "": str,
    "address": _address,
    "filter_address": _filter_address,
    "macro": _macro,
    "dns_server": _dns_server,
    "domain": _domain,
    "hostname": _hostname,
    "ip": _ip,
    "latency": normal_latency,
    "http_address": _http_address,
    "footer": _footer,
    "line": _line,
    "log_destination": _log_destination,
    "mailbox": _mailbox,
    "name": _name,
    "network": normal_network,
    "next_hop": _next_hop,
    "path": _path,
    "rate": _rate,
    "redis_url": _redis_url,
    "refusal": _refusal,
    "route_domain": _route_domain,
    "rule": _rule,
    "syslog_name": _syslog_name,
    "user": _name,
}
