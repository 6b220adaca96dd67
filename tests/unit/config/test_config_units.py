"""Sizes, durations and rates: what people write, what is refused, and that formatting can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("0", 0),
        ("4096", 4096),
        ("512 B", 512),
        ("50 MiB", 50 << 20),
        ("50MiB", 50 << 20),
        ("50 mib", 50 << 20),
        ("1.5 KiB", 1536),
        ("2 kB", 2000),
        ("1 MB", 1_000_000),
        (" 3 GiB ", 3 << 30),
        ("1 TiB", 1 << 40),
    ],
)
def test_size(text: str, octets: int) -> None:
    assert parse_size(text) == octets


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a size"),
        ("much", "is not a size"),
        ("-1", "is not a size"),
        ("50 M", 'unknown unit "M"'),
        ("50 MXB", 'did you mean "MB"?'),
        ("1.5 B", "not a whole number"),
        ("9" * 30, "is not a size"),
        ("٣ B", "is not a size"),
        ("1\x1b[31m", r"\\x1b"),
    ],
)
def test_bad_size(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("?", r"\?")):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("1.5", 1.5),
        ("250 ms", 0.25),
        ("5 min", 300.0),
        ("1 h 30 min", 5400.0),
        ("1h30min", 5400.0),
        ("5 d", 432000.0),
        ("2 w", 1209600.0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a duration"),
        ("soon", "is not a duration"),
        ("-5 s", "is not a duration"),
        ("5 m", 'did you mean "min"'),
        ("5 minutes", 'did you mean "min"'),
        ("1 h 30", "is not a duration"),
        ("30 1 h", "is not a duration"),
        ("5 fortnights", 'unknown unit "fortnights"'),
    ],
)
def test_bad_duration(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_duration(text)


@given(st.integers(0, 1 << 50))
def test_formatted_size_parses_to_the_same(octets: int) -> None:
    assert parse_size(format_size(octets)) == octets


@given(st.integers(0, 10**9).map(lambda ms: ms / 1000) | st.floats(0.001, 1e9))
def test_formatted_duration_parses_to_the_same(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(300.0, "5 min"), (0.5, "500 ms"), (604800.0, "7 d"), (1209600.0, "2 w"), (90.0, "90 s")]
)
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.text(max_size=30))
def test_any_text_gives_a_number_or_a_value_error(text: str) -> None:
    said: list[str] = []
    for parse in (parse_size, parse_duration):
        try:
            assert parse(text) >= 0
        except ValueError as error:
            said.append(str(error))
    assert all(map(str.isprintable, said))
