"""The compiled modules: all of them, none older than its source, none left over from a build before."""

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from smtpd import compiled


@pytest.mark.parametrize("name", compiled.MODULES)
def test_module_is_loaded_from_its_extension(name):
    file = importlib.import_module(name).__file__
    assert file is not None
    assert file.endswith(tuple(EXTENSION_SUFFIXES))


def test_each_module_is_named_once_and_has_its_types_beside_it():
    assert len(set(compiled.MODULES)) == len(compiled.MODULES)
    assert [
        name for name in compiled.MODULES if not any(os.path.exists(compiled.path_of(name, s)) for s in (".pyx", ".pxd"))
    ] == []


@pytest.fixture
def tree(tmp_path, monkeypatch):
    (tmp_path / "smtpd").mkdir()
    monkeypatch.setattr(compiled, "_ROOT", str(tmp_path))
    monkeypatch.setattr(compiled, "MODULES", ("smtpd.one",))
    return tmp_path / "smtpd"


def test_missing_extension_is_named(tree):
    (tree / "one.py").write_text("")
    assert compiled.find_unbuilt() == ["smtpd.one"]


def test_extension_older_than_its_source_is_stale(tree):
    built = tree / f"one{EXTENSION_SUFFIXES[0]}"
    built.write_bytes(b"")
    (tree / "one.py").write_text("")
    os.utime(built, (1, 1))
    assert compiled.find_unbuilt() == []
    assert compiled.find_stale() == ["smtpd.one"]


def test_extension_of_a_module_that_is_no_longer_compiled_is_named(tree):
    (tree / f"two{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    assert compiled.find_stale() == ["smtpd.two"]
