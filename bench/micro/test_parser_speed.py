"""The parser alone, beside the oracle: `python -m pytest bench/micro` (pytest-benchmark; one group for each input).

Every benchmark first checks that both give the same result, so that nobody is fast by leaving something out.
"""

from __future__ import annotations

import base64
import random
from types import ModuleType
from typing import Any

import pytest
from oracle import body as oracle_body
from oracle import commands as oracle_commands
from pytest_benchmark.fixture import BenchmarkFixture

from smtpd import _parser

HEAD = (
    b"Received: from a.example.com (a.example.com [192.0.2.1])\r\n\tby mx.example.net with ESMTP id 4XyZ\r\n"
    b"From: a@example.com\r\nTo: b@example.org\r\nSubject: a test\r\nMessage-Id: <1.2.3@example.com>\r\n\r\n"
)
DIALOGUE = (
    b"EHLO client.example.com\r\nMAIL FROM:<a@example.com> SIZE=4096 BODY=8BITMIME\r\nRCPT TO:<b@example.org>\r\n"
    b"rcpt to:<someone.else+tag@sub.example.org>\r\nDATA\r\nRSET\r\nNOOP\r\nQUIT\r\n"
)
PATHS = [
    (b"FROM:<a@example.com> SIZE=4096 BODY=8BITMIME", False),
    (b"FROM:<>", False),
    (b"TO:<b@example.org>", True),
    (b"TO:<someone.else+tag@sub.example.org>", True),
]


def content(lines: bytes, size_bytes: int) -> bytes:
    """Return a mail of about `size_bytes` that repeats `lines` below a head, ended by its dot."""
    return HEAD + lines * (size_bytes // len(lines)) + b".\r\n"


_BINARY = base64.encodebytes(random.Random(1).randbytes(3000)).replace(b"\n", b"\r\n")
BODIES = {
    "body 4 KB, text": content(b"The quick brown fox jumps over the lazy dog, as it always did before.\r\n", 4096),
    "body 64 KB, text": content(b"The quick brown fox jumps over the lazy dog, as it always did before.\r\n", 65536),
    "body 64 KB, base64": content(_BINARY, 65536),
    "body 64 KB, one line": content(b"x" * 65534 + b"\r\n", 65536),
    "body 64 KB, empty lines": content(b"\r\n", 65536),
    "body 64 KB, dots": content(b"..\r\n", 65536),
    "body 64 KB, bare line feeds": content(b"a line that ends as on Unix\n", 65536) + b"\r\n.\r\n",
}


def read_commands(module: Any, data: bytearray) -> list[tuple[int, bytes]]:
    """Return verb and argument of every command line."""
    reader = module.CommandReader()
    position, found = 0, []
    while position < len(data):
        position = reader.read(data, position, len(data))
        found.append((reader.verb, reader.argument))
    return found


def decode_body(module: Any, data: bytearray) -> tuple[int, bytes]:
    """Return where the content ended and what it decodes to."""
    decoder = module.BodyDecoder()
    decoder.start_data()
    end, decoded = decoder.feed(data, 0, len(data))
    assert decoder.is_done
    return end, decoded


def scan_paths(module: Any, paths: list[tuple[bytes, bool]]) -> list[Any]:
    return [module.scan_path(argument, is_recipient) for argument, is_recipient in paths]


COMMAND_MODULES = [pytest.param(_parser, id="parser"), pytest.param(oracle_commands, id="oracle")]
BODY_MODULES = [pytest.param(_parser, id="parser"), pytest.param(oracle_body, id="oracle")]


@pytest.mark.benchmark(group="commands of a session")
@pytest.mark.parametrize("module", COMMAND_MODULES)
def test_commands(benchmark: BenchmarkFixture, module: ModuleType) -> None:
    data = bytearray(DIALOGUE)
    assert read_commands(module, data) == read_commands(oracle_commands, data)
    assert len(benchmark(read_commands, module, data)) == 8


@pytest.mark.benchmark(group="paths of MAIL and RCPT")
@pytest.mark.parametrize("module", COMMAND_MODULES)
def test_paths(benchmark: BenchmarkFixture, module: ModuleType) -> None:
    assert scan_paths(module, PATHS) == scan_paths(oracle_commands, PATHS)
    assert None not in benchmark(scan_paths, module, PATHS)


@pytest.mark.benchmark(group="Message-Id of a head")
@pytest.mark.parametrize("module", COMMAND_MODULES)
def test_header(benchmark: BenchmarkFixture, module: ModuleType) -> None:
    assert benchmark(module.find_header, HEAD, b"message-id") == b"<1.2.3@example.com>"


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("module", BODY_MODULES)
def test_body(benchmark: BenchmarkFixture, module: ModuleType, name: str) -> None:
    benchmark.group = name
    data = bytearray(BODIES[name])
    assert decode_body(module, data) == decode_body(oracle_body, data)
    end, _ = benchmark(decode_body, module, data)
    assert end == len(data)
