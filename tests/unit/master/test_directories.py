"""Directories: made, given to the user when nobody else uses them, and refused by name."""

import os
from pathlib import Path

import pytest

from smtpd.errors import StartupError
from smtpd.master.directories import check_directories, check_writable, prepare_directories
from smtpd.master.privileges import Account
from smtpd.settings import LogSettings, RouteSettings, Settings, SpoolSettings

NOBODY = Account("nobody", 65534, 65534)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def settings(folder: Path, destination: str = "stderr") -> Settings:
    return Settings(
        run_dir=f"{folder}/run/deep",
        spool=SpoolSettings(path=f"{folder}/spool"),
        route=[RouteSettings(domains=["*"], transport="maildir", path=f"{folder}/mail")],
        log=LogSettings(destination=destination),
    )


def test_everything_that_is_missing_is_made_once_whatever_the_umask(tmp_path: Path) -> None:
    umask = os.umask(0o077)
    try:
        for _ in range(2):
            prepare_directories(settings(tmp_path, f"{tmp_path}/mail.log"), None)
            check_directories(settings(tmp_path))
    finally:
        os.umask(umask)
    assert (tmp_path / "run" / "deep").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mail.log").stat().st_mode & 0o777 == 0o600


@needs_root
def test_what_was_made_belongs_to_the_user(tmp_path: Path) -> None:
    prepare_directories(settings(tmp_path, f"{tmp_path}/mail.log"), NOBODY)
    for name in ("run", "run/deep", "spool", "mail", "mail.log"):
        assert (tmp_path / name).stat().st_uid == NOBODY.uid, name
    assert tmp_path.stat().st_uid == 0


@needs_root
def test_an_empty_spool_changes_its_owner_but_nothing_that_holds_data_does(tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    (tmp_path / "mail").mkdir()
    (tmp_path / "run" / "deep").mkdir(parents=True)
    (tmp_path / "run" / "deep" / "file").write_text("")
    prepare_directories(settings(tmp_path), NOBODY)
    assert (tmp_path / "spool").stat().st_uid == NOBODY.uid
    assert (tmp_path / "mail").stat().st_uid == 0
    assert (tmp_path / "run" / "deep").stat().st_uid == 0


def test_a_path_that_cannot_be_a_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("")
    prepare_directories(settings(tmp_path), None)
    with pytest.raises(StartupError, match="spool is not a directory") as caught:
        check_directories(settings(tmp_path))
    assert caught.value.exit_code == os.EX_CANTCREAT


@needs_root
def test_another_users_directory_is_refused_by_name() -> None:
    child = os.fork()
    if child == 0:
        code = 0
        try:
            os.setuid(NOBODY.uid)
            check_writable("/usr")
        except StartupError as error:
            code = error.exit_code if "/usr is not writable by user nobody" in str(error) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == os.EX_CANTCREAT


def test_the_discard_spool_needs_no_directory(tmp_path: Path) -> None:
    discard = Settings(run_dir=f"{tmp_path}/run", spool=SpoolSettings(engine="discard", path=f"{tmp_path}/spool"))
    prepare_directories(discard, None)
    check_directories(discard)
    assert not (tmp_path / "spool").exists()
