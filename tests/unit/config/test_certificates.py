"""What `smtpd check` and a start say of certificates and keys: every fault at once, each with its line."""

from __future__ import annotations

import os
import pathlib
import pwd
import shutil
import tempfile
from collections.abc import Callable, Iterator

import pytest
from gateway import to_toml
from tls_files import NAME, OTHER, Authority, KeyPair

from smtpd.config import examine
from smtpd.config.readable import find_unreadable

Fault = tuple[str, str]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def look(tmp_path: pathlib.Path) -> Callable[..., tuple[list[Fault], list[Fault]]]:
    def look(
        *pairs: KeyPair | dict[str, str],
        mode: str = "starttls",
        tls: dict[str, object] | None = None,
        user: str = "",
        **listener: object,
    ) -> tuple[list[Fault], list[Fault]]:
        settings = {
            "hostname": NAME,
            "user": user,
            "policy": {"relay_domains": ["example.org"], "postmaster": "postmaster@example.org"},
            "spool": {"path": "/var/spool/smtpd"},
            "listener": [{"address": "127.0.0.1:2525", "tls": mode, **listener}],
            "tls": {
                **(tls or {}),
                "certificate": [pair.settings if isinstance(pair, KeyPair) else pair for pair in pairs],
            },
            "route": [{"domains": ["example.org"], "transport": "discard"}],
        }
        if not pairs:
            del settings["tls"]["certificate"]  # type: ignore[attr-defined]
        path = tmp_path / "smtpd.toml"
        path.write_text(to_toml(settings))
        text = path.read_text().splitlines()
        examined = examine(str(path))
        for fault in examined.faults + examined.warnings:
            assert fault.key.rpartition(".")[2] in text[fault.line - 1], "the line is that of the key"
        return [(fault.key, fault.text) for fault in examined.faults], [(fault.key, fault.text) for fault in examined.warnings]

    return look


def test_a_good_one_has_neither_faults_nor_warnings(authority: Authority, look) -> None:
    assert look(authority.issue("good"), authority.issue("rsa", is_rsa=True), authority.issue("other", OTHER)) == ([], [])


def test_every_fault_of_every_certificate_at_once(authority: Authority, look, tmp_path: pathlib.Path) -> None:
    good, other = authority.issue("good"), authority.issue("other", OTHER)
    empty = tmp_path / "empty.pem"
    empty.write_text("no PEM\n")
    gone = tmp_path / "gone.pem"
    faults, _ = look(
        {"cert": str(gone), "key": str(gone)},
        {"cert": str(empty), "key": str(gone)},
        {"cert": str(good.cert), "key": str(other.key)},
        {"cert": str(good.cert), "key": str(empty)},
        {"cert": str(good.cert), "key": ""},
        {"cert": str(tmp_path), "key": str(good.key)},
    )
    assert faults == [
        ("tls.certificate.cert", f"{gone}: No such file or directory"),
        ("tls.certificate.cert", f"{empty}: no certificate in it (PEM is needed)"),
        ("tls.certificate.key", f"{gone}: No such file or directory"),
        ("tls.certificate.key", f"{other.key}: not the key of the certificate {good.cert}"),
        ("tls.certificate.key", f"{empty}: no private key in it (PEM is needed)"),
        ("tls.certificate.cert", f"{good.cert}: no private key in it (PEM is needed)"),
        ("tls.certificate.cert", f"{tmp_path}: not a file"),
    ]


def test_a_key_with_a_password_is_told_as_such(authority: Authority, look, tmp_path: pathlib.Path) -> None:
    from cryptography.hazmat.primitives import serialization as s

    good = authority.issue("good")
    key = s.load_pem_private_key(good.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"secret")))
    faults, _ = look({"cert": str(good.cert), "key": str(locked)})
    assert faults == [("tls.certificate.key", f"{locked}: the key needs a password, which nobody could give at a start")]


def test_warnings_of_time_and_names(authority: Authority, look) -> None:
    faults, warnings = look(authority.issue("old", OTHER, is_expired=True), authority.issue("twice", OTHER))
    assert faults == []
    (_, expired), (_, name), (_, double) = warnings
    assert "old.pem: expired on 20" in expired
    assert name.endswith(f'old.pem: for {OTHER}, not for the host name "{NAME}"')
    assert double.endswith("old.pem has the same names and the same kind of key")


def test_a_star_covers_one_label(authority: Authority, look) -> None:
    assert look(authority.issue("star", "*.example.net")) == ([], [])
    assert len(look(authority.issue("star", "*.net"))[1]) == 1


def test_settings_that_contradict_each_other(authority: Authority, look) -> None:
    assert look()[0] == [("listener.tls", '"starttls" needs a [[tls.certificate]]')]
    good = authority.issue("good")
    assert look(good, client_certificates="ask")[0] == [("listener.client_certificates", '"ask" needs tls.client_ca')]
    faults, _ = look(good, mode="off", client_certificates="ask")
    assert faults == [("listener.client_certificates", 'needs TLS: tls = "off" here')]
    ca = {"client_ca": str(good.key)}
    ((key, text),) = look(good, tls=ca, client_certificates="require")[0]
    assert key == "tls.client_ca"
    assert text.startswith(f"{good.key}: no CA certificates in it")
    ((key, text),) = look(good, tls={"ciphers": "ROT13"})[0]
    assert (key, text) == ("tls.ciphers", "OpenSSL knows none of ROT13")
    assert look(good, tls={"client_ca": str(authority.file)}, client_certificates="require") == ([], [])


@pytest.fixture
def open_folder() -> Iterator[pathlib.Path]:
    """One that other users may search, as pytest's own are not."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smtpd-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_key_that_the_user_could_not_read_at_a_reload(authority: Authority, look, open_folder: pathlib.Path) -> None:
    good = authority.issue("good")
    cert, key = (shutil.copy(file, open_folder) for file in (good.cert, good.key))
    pair = {"cert": str(cert), "key": str(key)}
    os.chmod(cert, 0o644)
    os.chmod(key, 0o600)
    ((where, text),) = look(pair, user="nobody")[1]
    assert where == "tls.certificate.key"
    assert text.startswith(f"{key}: user nobody can't read it")
    assert look(pair) == ([], [])
    assert look(pair, user="root") == ([], [])
    os.chmod(key, 0o640)
    os.chown(key, 0, pwd.getpwnam("nobody").pw_gid)
    assert look(pair, user="nobody") == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_who_asks_for_a_user_is_root_again_afterwards(open_folder: pathlib.Path) -> None:
    before = os.getresuid(), os.getresgid(), os.getgroups()
    open_folder.chmod(0o700)
    file = open_folder / "in a closed folder"
    file.touch(0o644)
    assert find_unreadable("nobody", [str(file), "/dev/null"]) == [str(file)]
    assert (os.getresuid(), os.getresgid(), os.getgroups()) == before


def test_nothing_is_said_of_a_user_that_is_none() -> None:
    assert find_unreadable("no-such-user", ["/dev/null"]) is None
