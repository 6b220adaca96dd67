"""The answers of the master's HTTP server by path, as data in and data out; sending them is `exporter.py`'s.

/metrics in the text format or OpenMetrics as the scraper prefers, gzip where it is taken; the others are JSON. /healthz and
/readyz answer 503 when the server is not what they ask for.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import CollectorRegistry

from smtpd.net.loop import Loop

_GZIP_LEVEL = 1  # the rest costs more than it saves
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_INDEX = b"smtpd: /metrics /healthz /readyz /status\n"
_METHODS = (("Allow", "GET, HEAD"),)
_VARY = (("Vary", "Accept, Accept-Encoding"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response without the framing."""

    status: int
    body: bytes
    content_type: str = _TEXT
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> bytes:
        return HTTPStatus(self.status).phrase.encode("ascii")


class Pages:
    """Renders /metrics at most once a turn of the loop for each encoding, however many ask."""

    def __init__(
        self,
        loop: Loop,
        registry: CollectorRegistry,
        health: Callable[[], tuple[bool, dict[str, Any]]],
        readiness: Callable[[], tuple[bool, dict[str, Any]]],
        status: Callable[[], dict[str, Any]],
    ) -> None:
        self._loop = loop
        self._registry = registry
        self._rendered: dict[tuple[str, bool], bytes] = {}
        self._rendered_at = -1.0
        self._pages: dict[bytes, Callable[[h11.Request], Answer]] = {
            b"/": lambda request: Answer(200, _INDEX),
            b"/metrics": self._metrics,
            b"/healthz": lambda request: _verdict(health()),
            b"/readyz": lambda request: _verdict(readiness()),
            b"/status": lambda request: _json(200, status()),
        }

    def answer(self, request: h11.Request) -> Answer:
        """Return the answer to a request without a body; whatever a page's source raises passes through."""
        if request.method not in (b"GET", b"HEAD"):
            return Answer(405, b"only GET and HEAD\n", headers=_METHODS)
        page = self._pages.get(_path_of(request.target))
        return page(request) if page is not None else Answer(404, b"no such page\n")

    def _metrics(self, request: h11.Request) -> Answer:
        encode, content_type = choose_encoder(_header(request, b"accept"))
        is_zipped = _accepts_gzip(_header(request, b"accept-encoding"))
        if self._rendered_at != self._loop.turn_started_at:
            self._rendered_at = self._loop.turn_started_at
            self._rendered.clear()
        body = self._rendered.get((content_type, False))
        if body is None:
            body = self._rendered[content_type, False] = encode(self._registry)
        if not is_zipped:
            return Answer(200, body, content_type, _VARY)
        zipped = self._rendered.get((content_type, True))
        if zipped is None:
            zipped = self._rendered[content_type, True] = gzip.compress(body, _GZIP_LEVEL, mtime=0)
        return Answer(200, zipped, content_type, (*_VARY, ("Content-Encoding", "gzip")))


def _verdict(found: tuple[bool, dict[str, Any]]) -> Answer:
    is_well, details = found
    return _json(200 if is_well else 503, details)


def _json(status: int, value: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(value).encode() + b"\n", _JSON)


def _path_of(target: bytes) -> bytes:
    """Return the path of a request target in origin or absolute form, as sent: nothing is decoded or resolved."""
    if target[:7].lower() == b"http://":
        _, slash, rest = target[7:].partition(b"/")
        target = slash + rest or b"/"
    return target.partition(b"?")[0]


def _header(request: h11.Request, name: bytes) -> str:
    return ",".join(value.decode("latin-1") for key, value in request.headers if key == name)


def _accepts_gzip(header: str) -> bool:
    for entry in header.lower().split(","):
        name, _, parameters = entry.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
