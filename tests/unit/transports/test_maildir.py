"""The Maildir transport on a real file system: what lies there afterwards, and what it says when it can't."""

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smtpd.mail.envelope import Envelope, Recipient
from smtpd.mail.outcome import DEFERRED, DELIVERED, Outcome
from smtpd.net.files import FilesThread
from smtpd.net.loop import Loop
from smtpd.spool.item import Body, SpoolItem
from smtpd.transports import maildir_batch
from smtpd.transports.maildir import MaildirTransport

TIMEOUT_S = 30.0


class Post:
    """A transport with its loop, and a way to wait for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.loop = Loop()
        self.files = FilesThread(self.loop)
        self.files.start()
        self.transport = MaildirTransport(str(root), "mx.example.net", self.files)

    def close(self) -> None:
        self.files.close()
        self.loop.close()

    def send(self, item: SpoolItem, body: Body, recipients: list[int] | None = None) -> list[Outcome]:
        return self.send_all([(item, body)], recipients)[0]

    def send_all(self, mails: list[tuple[SpoolItem, Body]], recipients: list[int] | None = None) -> list[list[Outcome]]:
        answers: dict[int, list[Outcome]] = {}
        for number, (item, body) in enumerate(mails):
            everyone = list(range(len(item.envelope.recipients)))

            def done(outcomes: list[Outcome], connect_s: float, number: int = number) -> None:
                assert number not in answers
                answers[number] = outcomes

            self.transport.deliver(item, body, recipients or everyone, done)
        deadline = time.monotonic() + TIMEOUT_S
        while len(answers) < len(mails):
            assert time.monotonic() < deadline
            self.loop.turn(1.0)
        return [answers[number] for number in range(len(mails))]

    def new(self, mailbox: str) -> list[Path]:
        return sorted((self.root / mailbox / "new").iterdir())


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    office = Post(tmp_path / "made" / "mail")
    yield office
    office.close()


def make_item(
    *paths: bytes, queue_id: str = "Q1", sender: bytes = b"s@example.com", received_at_s: float | None = None
) -> SpoolItem:
    recipients = [Recipient(path, path.rpartition(b"@")[2].decode().lower()) for path in paths or (b"alice@example.org",)]
    received_at_s = time.time() if received_at_s is None else received_at_s
    envelope = Envelope(sender, recipients, "192.0.2.1", "unknown", b"h", "ESMTP", received_at_s)
    return SpoolItem(queue_id, envelope, 0, 1, None)


def memory(data: bytes) -> Body:
    return Body(data, "", len(data))


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


MAIL = b"Received: from x\r\n\tby y\r\nReturn-Path: <old@example.com>\r\n\r\nline\r\n.dot\r\n\r\nlast\r\n"
ON_DISK = b"Return-Path: <s@example.com>\nDelivered-To: alice@example.org\n" + MAIL.replace(b"\r\n", b"\n")


def test_a_mail_is_filed_with_both_headers_and_unix_lines(post: Post) -> None:
    [outcome] = post.send(make_item(), memory(MAIL))
    assert (outcome.status, outcome.dsn, outcome.text, outcome.relay) == (DELIVERED, "2.0.0", "delivered to maildir", "maildir")
    [path] = post.new("example.org/alice")
    assert path.read_bytes() == ON_DISK
    assert path.name.split(".", 1)[1] == "Q1.mx.example.net"
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in ("", "example.org", "example.org/alice", *(f"example.org/alice/{name}" for name in ("tmp", "new", "cur"))):
        assert (post.root / folder).stat().st_mode & 0o777 == 0o700
    assert len(files_below(post.root)) == 1


def test_the_null_sender_is_kept_as_such(post: Post) -> None:
    post.send(make_item(sender=b""), memory(b""))
    assert post.new("example.org/alice")[0].read_bytes() == b"Return-Path: <>\nDelivered-To: alice@example.org\n"


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1 << 18])
def test_a_spilled_body_is_the_same_wherever_the_pieces_end(
    post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    monkeypatch.setattr(maildir_batch, "PIECE_BYTES", piece_bytes)
    monkeypatch.setattr(maildir_batch, "STEP_BYTES", 5)
    mail = MAIL + b"a\rb\r\r\n\r"
    spill = tmp_path / "spill"
    spill.write_bytes(mail)
    [outcome] = post.send(make_item(), Body(None, str(spill), len(mail)))
    assert outcome.status == DELIVERED
    assert post.new("example.org/alice")[0].read_bytes() == ON_DISK + b"a\rb\r\n\r"


def test_a_big_spilled_body_passes_whole_and_others_get_their_turn(post: Post, tmp_path: Path) -> None:
    line = b"0123456789abcdef" * 4 + b"\r\n"
    spill = tmp_path / "spill"
    spill.write_bytes(line * 200_000)
    answers: list[str] = []
    post.transport.deliver(make_item(), Body(None, str(spill), len(line) * 200_000), [0], lambda *_: answers.append("mail"))
    post.files.submit(lambda: None, lambda result, failure: answers.append("other"))
    while len(answers) < 2:
        post.loop.turn(TIMEOUT_S)
    assert answers == ["other", "mail"]
    text = post.new("example.org/alice")[0].read_bytes()
    assert text.endswith((line * 200_000).replace(b"\r\n", b"\n"))


def test_a_spill_file_that_is_gone_or_cut_defers_and_leaves_nothing(post: Post, tmp_path: Path) -> None:
    [missing] = post.send(make_item(), Body(None, str(tmp_path / "none"), 10))
    spill = tmp_path / "spill"
    spill.write_bytes(b"short")
    [cut] = post.send(make_item(), Body(None, str(spill), 10))
    assert (missing.status, cut.status) == (DEFERRED, DEFERRED)
    assert "No such file" in missing.text
    assert "5 octets instead of 10" in cut.text
    assert files_below(post.root) == []


def test_recipients_that_share_a_mailbox_get_one_copy(post: Post) -> None:
    item = make_item(b"alice@example.org", b"bob@example.org", b'"alice"@example.org', b"alice@EXAMPLE.org")
    outcomes = post.send(item, memory(MAIL))
    assert [outcome.status for outcome in outcomes] == [DELIVERED] * 4
    assert len(post.new("example.org/alice")) == len(post.new("example.org/bob")) == 1
    assert b"Delivered-To: alice@example.org\n" in post.new("example.org/alice")[0].read_bytes()


def test_only_the_recipients_asked_for_get_it(post: Post) -> None:
    item = make_item(b"a@example.org", b"b@example.org", b"c@example.org")
    assert len(post.send(item, memory(MAIL), [0, 2])) == 2
    assert sorted(path.name for path in (post.root / "example.org").iterdir()) == ["a", "c"]


def test_many_recipients_are_more_than_one_batch(post: Post) -> None:
    outcomes = post.send(make_item(*(b"u%d@example.org" % n for n in range(140))), memory(b"x\r\n"))
    assert [outcome.status for outcome in outcomes] == [DELIVERED] * 140
    assert len(files_below(post.root)) == 140


@pytest.mark.parametrize(
    "path",
    [
        b"../../etc/passwd@example.org", b"..@example.org", b".@example.org", b"a\0b@example.org", b"a\nb@example.org",
        b"-rf@example.org", b"/etc/cron.d/x@example.org", b"x" * 300 + b"@example.org", b"%2e%2e@example.org", b'"/"@example.org',
        b"u@..", b"u@.", b"u@a/../../b", b"u@" + b"d" * 300, b"\xff\xfe@example.org",
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_root(post: Post, path: bytes) -> None:
    before = files_below(post.root.parent.parent)
    [outcome] = post.send(make_item(path), memory(MAIL))
    assert outcome.status == DELIVERED
    [added] = set(files_below(post.root.parent.parent)) - set(before)
    assert added.startswith("made/mail/")
    text = (post.root.parent.parent / added).read_bytes()
    assert text.count(b"\n") == ON_DISK.count(b"\n")


def test_forged_control_octets_make_no_header(post: Post) -> None:
    post.send(make_item(b"a\nX: y@example.org", sender=b"s\r\nBcc: x@example.com"), memory(b"\r\n"))
    [path] = post.root.rglob("*Q1*")
    assert path.read_bytes() == b"Return-Path: <s??Bcc: x@example.com>\nDelivered-To: a?X: y@example.org\n\n"


@pytest.mark.parametrize("planted", ["example.org", "example.org/alice", "example.org/alice/tmp", "example.org/alice/new"])
def test_symlinks_below_the_root_are_not_followed(post: Post, tmp_path: Path, planted: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    for name in ("alice/new", "alice/tmp", "alice/cur", "new", "tmp", "cur"):
        (elsewhere / name).mkdir(parents=True)
    link = post.root / planted
    link.parent.mkdir(parents=True)
    link.symlink_to(elsewhere)
    [outcome] = post.send(make_item(), memory(MAIL))
    assert (outcome.status, outcome.dsn) == (DEFERRED, "4.3.5")
    assert "symlink" in outcome.text
    assert files_below(elsewhere) == []


def test_symlinks_planted_as_files_are_replaced_not_followed(post: Post, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    item = make_item()
    name = f"{int(item.envelope.received_at_s)}.Q1.mx.example.net"
    for folder in ("tmp", "new"):
        link = post.root / "example.org/alice" / folder / name
        link.parent.mkdir(parents=True)
        link.symlink_to(victim)
    [outcome] = post.send(item, memory(MAIL))
    assert outcome.status == DELIVERED
    assert victim.read_bytes() == b"precious"
    [path] = post.new("example.org/alice")
    assert not path.is_symlink()
    assert path.read_bytes() == ON_DISK
    assert list((post.root / "example.org/alice/tmp").iterdir()) == []


def test_the_root_itself_may_be_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    office = Post(tmp_path / "link")
    try:
        assert office.send(make_item(), memory(MAIL))[0].status == DELIVERED
        assert len(files_below(tmp_path / "real")) == 1
    finally:
        office.close()


def test_the_same_mail_again_replaces_itself(post: Post) -> None:
    item = make_item()
    post.send(item, memory(MAIL))
    (post.root / "example.org/alice/tmp" / post.new("example.org/alice")[0].name).write_bytes(b"left by a crash")
    post.send(item, memory(MAIL))
    assert [path.read_bytes() for path in post.new("example.org/alice")] == [ON_DISK]
    assert len(files_below(post.root)) == 1


@pytest.mark.parametrize("flags", ["", "S", "RS", "DFPRST"])
def test_a_mail_that_a_reader_has_moved_is_not_delivered_again(post: Post, flags: str) -> None:
    item = make_item()
    post.send(item, memory(MAIL))
    [path] = post.new("example.org/alice")
    path.rename(post.root / "example.org/alice/cur" / f"{path.name}:2,{flags}")
    [outcome] = post.send(item, memory(MAIL))
    assert outcome.status == DELIVERED
    assert len(files_below(post.root)) == 1


def test_cur_is_not_searched_when_nothing_was_moved_since_the_mail_came(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.send(make_item(queue_id="Q1"), memory(MAIL))
    monkeypatch.setattr(maildir_batch, "_FLAG_SETS", None)  # searching would now fail
    [outcome] = post.send(make_item(queue_id="Q2", received_at_s=time.time() + 60), memory(MAIL))
    assert outcome.status == DELIVERED


def test_a_mailbox_that_is_removed_is_made_again(post: Post) -> None:
    post.send(make_item(), memory(MAIL))
    subprocess.run(["rm", "-r", str(post.root / "example.org")], check=True)
    [outcome] = post.send(make_item(queue_id="Q2"), memory(MAIL))
    assert outcome.status == DELIVERED
    assert len(files_below(post.root)) == 1


def test_a_file_in_place_of_a_folder_defers_only_that_mailbox(post: Post) -> None:
    (post.root / "example.org").mkdir(parents=True)
    (post.root / "example.org/alice").write_bytes(b"")
    alice, bob = post.send(make_item(b"alice@example.org", b"bob@example.org"), memory(MAIL))
    assert (alice.status, alice.dsn, alice.relay) == (DEFERRED, "4.3.5", "maildir")
    assert alice.text == f"cannot write mailbox {post.root}/example.org/alice: a file or symlink is in the way of a folder"
    assert bob.status == DELIVERED


def test_a_folder_in_place_of_the_file_defers_and_leaves_no_rest(post: Post) -> None:
    item = make_item()
    name = f"{int(item.envelope.received_at_s)}.Q1.mx.example.net"
    (post.root / "example.org/alice/new" / name).mkdir(parents=True)
    [outcome] = post.send(item, memory(MAIL))
    assert (outcome.status, outcome.dsn) == (DEFERRED, "4.3.5")
    assert files_below(post.root) == []


def failing(real: Callable[..., Any], number: int, only: Callable[..., bool]) -> Callable[..., Any]:
    def call(*args: Any, **keys: Any) -> Any:
        if only(*args, **keys):
            raise OSError(number, os.strerror(number))
        return real(*args, **keys)

    return call


@pytest.mark.parametrize(
    ("number", "dsn"),
    [(errno.ENOSPC, "4.3.1"), (errno.EDQUOT, "4.2.2"), (errno.EIO, "4.3.0"), (errno.EACCES, "4.3.5"), (errno.EMFILE, "4.3.0")],
)
@pytest.mark.parametrize("call", ["open", "mkdir", "writev", "fsync", "rename"])
def test_every_failure_is_a_deferral_and_the_next_attempt_works(
    post: Post, monkeypatch: pytest.MonkeyPatch, call: str, number: int, dsn: str
) -> None:
    post.root.mkdir(parents=True)
    (post.root / "example.org").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(maildir_batch.os, call, failing(getattr(os, call), number, lambda *_, **__: True))
        [outcome] = post.send(make_item(), memory(MAIL))
    assert (outcome.status, outcome.dsn) == (DEFERRED, dsn)
    assert outcome.text == f"cannot write mailbox {post.root}/example.org/alice: {os.strerror(number)}"
    assert files_below(post.root) == []
    assert post.send(make_item(), memory(MAIL))[0].status == DELIVERED
    assert len(files_below(post.root)) == 1


def test_a_folder_that_cannot_be_synced_is_a_deferral_and_the_mail_does_not_double(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = make_item()

    def is_folder(fd: int) -> bool:
        return os.path.isdir(f"/proc/self/fd/{fd}")

    with monkeypatch.context() as patched:
        patched.setattr(maildir_batch.os, "fsync", failing(os.fsync, errno.EIO, is_folder))
        [outcome] = post.send(item, memory(MAIL))
    assert (outcome.status, outcome.dsn) == (DEFERRED, "4.3.0")
    assert post.send(item, memory(MAIL))[0].status == DELIVERED
    assert len(files_below(post.root)) == 1


def test_everything_is_synced_before_it_counts(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        calls.append("sync " + os.readlink(f"/proc/self/fd/{fd}").removeprefix(f"{post.root}").replace("Q1", "Q"))
        real_fsync(fd)

    def rename(*args: Any, **keys: Any) -> None:
        calls.append("rename")
        real_rename(*args, **keys)

    post.send(make_item(b"bob@example.org", queue_id="Q0"), memory(MAIL))
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    item = make_item()
    post.send(item, memory(MAIL))
    name = f"{int(item.envelope.received_at_s)}.Q.mx.example.net"
    assert calls[:3] == [f"sync /example.org/alice/tmp/{name}", "rename", "sync /example.org/alice/new"]
    assert sorted(calls[3:]) == ["sync ", "sync /example.org", "sync /example.org/alice"]
    calls.clear()
    post.send(make_item(queue_id="Q2"), memory(MAIL))
    assert [call.split("/")[-1] for call in calls[1:]] == ["rename", "new"]


def test_mails_that_wait_share_the_syncs_of_their_folder(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.send(make_item(queue_id="first"), memory(MAIL))
    synced: list[str] = []
    real_fsync = os.fsync

    def fsync(fd: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{fd}"))
        real_fsync(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    all_wait = threading.Event()
    post.files.submit(lambda: all_wait.wait(TIMEOUT_S), lambda result, failure: None)
    post.loop.ready(all_wait.set)  # on the turn that follows, so that no mail goes ahead alone
    post.send_all([(make_item(queue_id=f"Q{number}"), memory(MAIL)) for number in range(40)])
    assert len(post.new("example.org/alice")) == 41
    assert sum(path.endswith("/new") for path in synced) == 1
    assert len(synced) == 41


def test_no_descriptor_is_left_open(post: Post) -> None:
    post.send(make_item(b"a@example.org", b"b@example.org"), memory(MAIL))
    before = set(os.listdir("/proc/self/fd"))
    (post.root / "example.org/c").write_bytes(b"")
    post.send(make_item(b"a@example.org", b"b@example.org", b"c@example.org", queue_id="Q2"), memory(MAIL))
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_fault_of_the_program_defers_the_batch(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maildir_batch.Folders, "mailbox", failing(print, 0, lambda *_: False))
    [outcome] = post.send(make_item(), memory(MAIL))
    assert (outcome.status, outcome.dsn) == (DEFERRED, "4.3.0")
    assert "AttributeError" in outcome.text


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs takes root")
@pytest.mark.parametrize(("option", "count"), [("size=64k", 40), ("size=1m,nr_inodes=16", 40)])
def test_a_full_file_system_defers_and_is_used_again_when_there_is_room(tmp_path: Path, option: str, count: int) -> None:
    root = tmp_path / "small"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "smtpd-test", str(root)], check=True)
    try:
        office = Post(root)
        try:
            body = memory(b"x" * 4000 + b"\r\n")
            answers = office.send_all([(make_item(queue_id=f"Q{number}"), body) for number in range(count)])
            delivered = [outcome for [outcome] in answers if outcome.status == DELIVERED]
            deferred = [outcome for [outcome] in answers if outcome.status == DEFERRED]
            assert delivered
            assert deferred
            assert {(outcome.dsn, outcome.text.rpartition(": ")[2]) for outcome in deferred} == {
                ("4.3.1", "No space left on device")
            }
            assert len(files_below(root)) == len(delivered)
            for path in office.new("example.org/alice"):
                path.unlink()
            assert office.send(make_item(queue_id="later"), body)[0].status == DELIVERED
        finally:
            office.close()
    finally:
        subprocess.run(["umount", str(root)], check=True)
