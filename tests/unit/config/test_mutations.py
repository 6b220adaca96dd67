"""Whatever a file holds, it gives settings or faults: no traceback, and each fault names a line that exists."""

from __future__ import annotations

import pathlib

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from smtpd.config import examine

ROOT = pathlib.Path(__file__).parents[3]
SEED = (ROOT / "conf" / "examples" / "mx.toml").read_bytes() + (
    b'[[listener]]\naddress = "127.0.0.1:26"\nsuppress = { "10.0.0.0/8" = ["DSN"], "::1" = [] }\nbacklog = 5\n'
    b'[metrics]\naddress = ""\n'
)
SCRAPS = [
    b'"',
    b"'",
    b'"""',
    b"[",
    b"]",
    b"[[",
    b"{",
    b"}",
    b"=",
    b",",
    b".",
    b"#",
    b"\n",
    b"\r\n",
    b"\0",
    b"\xff",
    b"\\",
    b"\\u0000",
    b"1",
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"true",
    b"99999999999999999999",
    b"2020-01-01",
    b'""',
    b"[]",
    b"{}",
    b'"*"',
    b'"\\u001b[0m"',
    b"[[route]]\n",
    b"[spool]\n",
    b"route = 1\n",
    "é".encode(),
    "\u202e".encode(),
]

_EDITS = st.lists(
    st.tuples(
        st.integers(0, len(SEED)),
        st.integers(0, 12),
        st.sampled_from(SCRAPS) | st.binary(max_size=4) | st.just(b""),
    ),
    min_size=1,
    max_size=5,
)


def check(path: pathlib.Path, data: bytes) -> None:
    path.write_bytes(data)
    examined = examine(str(path))
    assert (examined.settings is None) == bool(examined.faults)
    lines = data.count(b"\n") + 1
    for finding in examined.faults + examined.warnings:
        assert 0 <= finding.line <= lines
        assert finding.line or not finding.key
        assert finding.text
        assert str(finding).isprintable()


@given(_EDITS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400, deadline=None)
def test_edits_of_a_good_file(tmp_path: pathlib.Path, edits: list[tuple[int, int, bytes]]) -> None:
    data = SEED
    for at, removed, added in edits:
        data = data[:at] + added + data[at + removed :]
    check(tmp_path / "smtpd.toml", data)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300, deadline=None)
def test_values_of_other_kinds(tmp_path: pathlib.Path, data: st.DataObject) -> None:
    # a valid document in which the values of some keys are others: faults of meaning, not of syntax
    lines = SEED.split(b"\n")
    places = [number for number, line in enumerate(lines) if b" = " in line]
    for number in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=6, unique=True)):
        key = lines[number].partition(b" = ")[0]
        lines[number] = key + b" = " + data.draw(_VALUES)
    check(tmp_path / "smtpd.toml", b"\n".join(lines))


_ATOMS = st.sampled_from(
    [b"0", b"-1", b"1.5", b"1e400", b"-inf", b"nan", b"true", b"07:32:00", b"9223372036854775808", b'""', b"{}"]
) | st.sampled_from(
    ["x", "*", ".", "..", "a@b", "::1", "10.0.0.0/33", "5 min", "5 MiB", "\\u0000", "/", "\u202e", "xn--a", "ß.ß"]
).map(lambda text: f'"{text}"'.encode())
_VALUES = (
    _ATOMS
    | st.lists(_ATOMS, max_size=3).map(lambda elements: b"[" + b", ".join(elements) + b"]")
    | _ATOMS.map(lambda atom: b'{ "10.0.0.0/8" = ' + atom + b" }")
    | _ATOMS.map(lambda atom: b'[{ address = "127.0.0.1:1", domains = ' + atom + b" }]")
)


@given(st.binary(max_size=200))
@example(b"\xef\xbb\xbf")
@example(b"a" * 100_000)
@example(b"a." * 5_000 + b"a = 1")
@example(b"a = " + b"[" * 900 + b"]" * 900)
@example(b"a = " + b"{a=" * 300 + b"1" + b"}" * 300)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200, deadline=None)
def test_any_bytes(tmp_path: pathlib.Path, data: bytes) -> None:
    check(tmp_path / "smtpd.toml", data)
