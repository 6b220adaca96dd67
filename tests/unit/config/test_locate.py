"""The line index knows every key and element that tomllib knows, and no other, each on its line."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd.config.locate import LineIndex, Path


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """Every path of a document as tomllib sees it."""
    found: set[Path] = {path} if path else set()
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, element in pairs:
        found |= paths_of(element, path + (key,))
    return found


DOCUMENT = '''\
# a comment with [brackets] and "quotes"
title = "one # two"   # three
a.b."c d".'e' = 1
"k\\u00e9y" = 'literal \\'

[server]  # comment
list = [
  "x]", # not the end
  [1, 2],
  { in = 1, "line.d" = [true] },
]
text = """
first = 1
[not.a.table]
quotes "" inside ""\\" and a \\\\"""
raw = \'\'\'
x = [\'\'quotes\'\'\'\'
when = 1979-05-27 07:32:00Z

[[route]]
domains = ["a",
  "b"]
[route.options]
x = 1
[[route]]
domains = []
[[route.step]]
n = 1
[[route.step]]
n = 2
[a.b.z]
y.w = -inf
'''


def test_lines_of_a_rich_document() -> None:
    index = LineIndex(DOCUMENT)
    lines = DOCUMENT.splitlines()
    assert index.paths() == paths_of(tomllib.loads(DOCUMENT))
    expected: list[tuple[Path, str]] = [
        (("title",), "title"),
        (("a", "b", "c d", "e"), "a.b."),
        (("kéy",), '"k\\u00e9y"'),
        (("server",), "[server]"),
        (("server", "list", 0), '  "x]"'),
        (("server", "list", 1, 1), "  [1, 2]"),
        (("server", "list", 2, "line.d", 0), "  { in"),
        (("server", "text"), "text"),
        (("server", "raw"), "raw"),
        (("server", "when"), "when"),
        (("route", 0, "domains", 1), '  "b"]'),
        (("route", 0, "options", "x"), "x = 1"),
        (("route", 1, "step", 1, "n"), "n = 2"),
        (("a", "b", "z", "y", "w"), "y.w"),
    ]
    for path, start in expected:
        assert index.has(path), path
        assert lines[index.line(path) - 1].startswith(start), path


def test_a_path_that_is_not_there_has_the_line_of_what_is_around_it() -> None:
    index = LineIndex("\n\n[[route]]\nname = 'x'\n")
    assert index.line(("route", 0, "transport")) == 3
    assert index.line(("route", 7, "transport")) == 3
    assert index.line(("spool", "path")) == 1
    assert not index.has(("route", 0, "transport"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# only",
        "a=1",
        "a=1\r\nb=[1,\r\n2]\r\n",
        "a = ''\nb=\"\"\nc=''''''\nd=\"\"\"\"\"\"\n",
        "a = '''''x'''''\n",
        "a = []\nb = {}\nc = [[],[{}]]",
        "a = [1,]\n",
        "[ a . b ]\n[[ a . c ]]\nx = 1",
        '"" = 1\n',
        "[x]\n[x.y]\n[x.y.z]",
        "1 = 1\n2.5 = 2\n",
        'a = "\\\\"\nb = "\\""\n',
    ],
)
def test_small_documents(text: str) -> None:
    assert LineIndex(text.replace("\r\n", "\n")).paths() == paths_of(tomllib.loads(text))


_TEXTS = st.text(st.sampled_from("ab\"'\\#[]{}=.,\né\t"), max_size=8)
_KEYS = st.text(st.sampled_from("ab-\"'.# é\\"), min_size=1, max_size=4)
_BLANKS = st.sampled_from(["", " ", "\t"])


def basic(text: str) -> str:
    named = {"\n": "\\n", "\t": "\\t", '"': '\\"', "\\": "\\\\"}
    return '"' + "".join(named.get(c, c) for c in text) + '"'


@st.composite
def values(draw: st.DrawFn, depth: int = 0) -> str:
    kinds = ["text", "lines", "literal", "number"] + (["list", "table"] if depth < 3 else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "text":
        return basic(draw(_TEXTS))
    if kind == "lines":
        text = draw(_TEXTS).replace("\\", "\\\\").replace('"""', "").strip('"')
        return f'"""{text}"""'
    if kind == "literal":
        return "'''" + draw(_TEXTS).replace("'''", "").strip("'") + "'''"
    if kind == "number":
        return draw(st.sampled_from(["1", "-0.5e3", "true", "2020-01-01", "07:32:00", "0xff", "inf"]))
    if kind == "list":
        filler = draw(st.sampled_from(["", " ", "\n", " # ]\n"]))
        elements = draw(st.lists(values(depth + 1), max_size=3))
        return "[" + filler + f",{filler}".join(elements) + filler + "]"
    keys = draw(st.lists(_KEYS, max_size=3, unique=True))
    return "{" + ", ".join(f"{basic(k)} = {draw(values(depth + 1))}" for k in keys) + "}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    lines = []
    for key in draw(st.lists(_KEYS, max_size=4, unique=True)):
        lines.append(f"{draw(_BLANKS)}{basic(key)}{draw(_BLANKS)}={draw(_BLANKS)}{draw(values())} # end")
    for number in range(draw(st.integers(0, 3))):
        lines.append(draw(st.sampled_from([f"[t{number}]", f"[t{number}.sub]", "[[arr]]", "[[other.arr]]"])))
        for key in draw(st.lists(_KEYS, max_size=2, unique=True)):
            lines.append(f"{basic(key)} = {draw(values())}")
    return "\n".join(lines)


@given(documents())
def test_the_index_and_tomllib_agree(text: str) -> None:
    index = LineIndex(text)
    expected = paths_of(tomllib.loads(text))
    assert index.paths() == expected
    count = text.count("\n") + 1
    assert all(1 <= index.line(path) <= count for path in expected)
