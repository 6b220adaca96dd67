"""Checks of a real gateway: in memory and asking elsewhere, at each stage, and what they change of a mail before it is stored."""

from __future__ import annotations

import signal
import smtplib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, running_gateway, wait_until
from policy_stub import install_checks

BIG_BYTES = 600_000  # goes through a spill file


class Desk(threading.Thread):
    """Answers the check `slow` at a unix socket: `answers` by what is asked, "ok" for all else. "hang" never answers."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = str(path)
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(50)
        self._open: list[socket.socket] = []

    def run(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer.makefile("rb") as file:
                line = file.readline().decode().strip()
            self.asked.append(line)
            answer = next((text for key, text in self.answers.items() if line.startswith(key)), "ok")
            if answer == "hang":
                self._open.append(peer)
                continue
            peer.sendall(answer.encode() + b"\n")
            peer.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(10)
        for peer in self._open:
            peer.close()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("PYTHONPATH", str(install_checks(tmp_path)))
    desk = Desk(tmp_path / "desk")
    desk.start()
    yield desk
    desk.close()


def policy(*checks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"policy": {"check": list(checks), "trusted": ["192.0.2.1"], **more}}


def client(gateway: Gateway) -> smtplib.SMTP:
    return smtplib.SMTP(gateway.host, gateway.port, "client.example", timeout=30)


def counted(gateway: Gateway, check: str, result: str) -> float:
    return gateway.metric("smtpd_policy_checks_total", check=check, result=result)


def test_memory_and_slow_checks_judge_each_recipient_in_order(tmp_path: Path, desk: Desk) -> None:
    checks = policy(
        {"name": "access", "rules": ["recipient nobody@example.org reject 550 5.1.1 Gone", "sender bad.example tempfail"]},
        {"name": "slow", "socket": desk.path},
        footer="; session {session}\nContact postmaster@example.org",
    )
    desk.answers["rcpt full@example.org"] = "452 4.2.2 Mailbox full"
    desk.answers["rcpt odd@example.org"] = "boom"
    with running_gateway(tmp_path, checks) as gateway, socket.create_connection((gateway.host, gateway.port), 20) as sock:
        file = sock.makefile("rb")
        assert file.readline().startswith(b"220 ")
        sock.sendall(b"EHLO client.example\r\n")
        while file.readline()[3:4] == b"-":
            pass
        sock.sendall(
            b"MAIL FROM:<a@bad.example>\r\nMAIL FROM:<a@good.example>\r\nRCPT TO:<nobody@example.org>\r\n"
            b"RCPT TO:<full@example.org>\r\nRCPT TO:<odd@example.org>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n"
        )
        replies: list[bytes] = []
        while not replies or replies[-1][:3] != b"354":
            replies.append(file.readline())
        assert [reply[:4] for reply in replies] == [
            b"450-", b"450 ", b"250 ", b"550-", b"550 ", b"452-", b"452 ", b"451-", b"451 ", b"250 ", b"354 ",
        ]  # fmt: skip
        assert b"; session " in replies[0]
        assert replies[4] == b"550 5.1.1 Contact postmaster@example.org\r\n"
        sock.sendall(b"Subject: x\r\n\r\ny\r\n.\r\nQUIT\r\n")
        assert file.readline().startswith(b"250 2.0.0 Ok: queued")
        assert file.readline().startswith(b"221 ")
        file.close()
        gateway.await_mails("alice")
        wait_until("the log has it", lambda: "NOQUEUE: reject: RCPT from unknown[" in gateway.log_text(20000), 20)
        wait_until("and the failure", lambda: "check slow: RCPT from" in gateway.log_text(20000), 20)
        assert desk.asked == ["rcpt full@example.org 0", "rcpt odd@example.org 0", "rcpt alice@example.org 0"]
        assert counted(gateway, "slow", "defer") == counted(gateway, "slow", "error") == counted(gateway, "slow", "ok") == 1
        assert counted(gateway, "access", "reject") == 1
        assert gateway.metric("smtpd_rejections_total", stage="rcpt", reason="policy_service") == 1


def test_a_check_that_hangs_is_its_on_error_and_a_dry_run_only_tells(tmp_path: Path, desk: Desk) -> None:
    desk.answers["rcpt"] = "hang"
    desk.answers["mail"] = "550 5.7.1 Never"
    base = {"name": "slow", "socket": desk.path, "timeout": "100 ms"}
    checks = policy(
        {**base, "label": "watched", "at": ["mail"], "dry_run": True},
        {**base, "label": "lenient", "on_error": "accept"},
        {**base, "label": "strict", "on_error": "reject", "except_networks": ["127.0.0.0/8"]},
    )
    with running_gateway(tmp_path, checks) as gateway, client(gateway) as smtp:
        smtp.sendmail("a@example.net", ["alice@example.org"], b"Subject: x\r\n\r\ny\r\n")
        gateway.await_mails("alice")
        assert counted(gateway, "lenient", "timeout") == 1
        assert counted(gateway, "watched", "reject") == 1
        assert counted(gateway, "strict", "timeout") == 0
        line = "NOQUEUE: reject_warning: MAIL from unknown["
        wait_until("the dry run is told", lambda: line in gateway.log_text(20000), 20)
        assert "(dry run of check watched)" in gateway.log_text(20000)


@pytest.mark.parametrize(("answer", "said"), [("421 4.7.0 Later", 421), ("550 5.7.1 No", 554), ("521 5.7.1 Never", 521)])
def test_a_connection_is_refused_instead_of_greeted(tmp_path: Path, desk: Desk, answer: str, said: int) -> None:
    desk.answers["connect"] = answer
    with (
        running_gateway(tmp_path, policy({"name": "slow", "socket": desk.path, "at": ["connect"]})) as gateway,
        socket.create_connection((gateway.host, gateway.port), 20) as sock,
        sock.makefile("rb") as file,
    ):
        assert file.readline() == b"%d%s\r\n" % (said, answer[3:].encode())
        if said == 554:
            sock.sendall(b"EHLO client.example\r\nQUIT\r\n")
            assert file.readline().startswith(b"503 ")
            assert file.readline().startswith(b"221 ")
        assert file.readline() == b""


def test_helo_data_and_content_are_asked_about_in_smtp(tmp_path: Path, desk: Desk) -> None:
    desk.answers["helo"] = "550 5.7.1 No such host"
    desk.answers["body"] = "550 5.7.1 Not this"
    checks = policy({"name": "slow", "socket": desk.path, "at": ["helo", "data", "body"]})
    with running_gateway(tmp_path, checks) as gateway, client(gateway) as smtp:
        assert smtp.ehlo()[0] == 550
        assert smtp.docmd("MAIL FROM:<>")[0] == 503
        del desk.answers["helo"]
        assert smtp.ehlo()[0] == 250
        big = b"Subject: x\r\n\r\n" + b"0123456789abcde\r\n" * (BIG_BYTES // 17)
        for content in (b"Subject: x\r\n\r\ny\r\n", big):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                smtp.sendmail("a@example.net", ["alice@example.org"], content)
            assert refused.value.smtp_code == 550
            assert desk.asked[-2:] == ["data  0", f"body  {len(content)}"]
        desk.answers["data"] = "451 4.7.1 Later"
        with pytest.raises(smtplib.SMTPDataError) as deferred:
            smtp.sendmail("a@example.net", ["alice@example.org"], b"Subject: x\r\n\r\ny\r\n")
        assert deferred.value.smtp_code == 451
        smtp.docmd("RSET")
        smtp.mail("a@example.net")
        smtp.rcpt("alice@example.org")
        smtp.send(b"BDAT 3\r\nabc")  # refused, and swallowed
        assert smtp.getreply()[0] == 451
        desk.answers["data"] = "ok"
        smtp.send(b"BDAT 12\r\nSubject: x\r\nBDAT 4 LAST\r\n\r\ny\n")
        assert [smtp.getreply()[0], smtp.getreply()[0]] == [250, 550]
        assert gateway.queue() == []
        assert not list(gateway.spool.rglob("*.part"))
        wait_until("the log has it", lambda: gateway.log_text(20000).count(": reject: END-OF-MESSAGE from unknown[") == 3, 20)
        assert "NOQUEUE: reject: END-OF-MESSAGE" not in gateway.log_text(20000)


def test_checks_and_commit_have_their_limit_together(tmp_path: Path, desk: Desk) -> None:
    desk.answers["body"] = "hang"
    checks = policy({"name": "slow", "socket": desk.path, "at": ["body"], "timeout": "5 min"})
    with running_gateway(tmp_path, {**checks, "limits": {"end_of_data_timeout": "400 ms"}}) as gateway, client(gateway) as smtp:
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail("a@example.net", ["alice@example.org"], b"Subject: x\r\n\r\ny\r\n")
        assert refused.value.smtp_code == 451
        assert refused.value.smtp_error.startswith(b"4.3.0 ")
        desk.answers.clear()
        smtp.sendmail("a@example.net", ["alice@example.org"], b"Subject: x\r\n\r\ny\r\n")
        gateway.await_mails("alice")


@pytest.mark.parametrize("filler", [b"", b"0123456789abcde\r\n" * (BIG_BYTES // 17)], ids=["memory", "spilled"])
def test_changes_are_in_what_is_stored(tmp_path: Path, desk: Desk, filler: bytes) -> None:
    with running_gateway(tmp_path, policy({"name": "edit"})) as gateway, client(gateway) as smtp:
        do = [
            b"InsertHeader(0, b'Authentication-Results', b'mx.example.net; none')",
            b"InsertHeader(1, b'X-First', b'1')",
            b"ChangeHeader(b'subject', 1, b'[spam] x\\n folded')",
            b"ChangeHeader(b'X-Gone', 2, None)",
            b"AddHeader(b'X-Last', b'z')",
            b"AddRecipient(b'bob@example.org')",
            b"ChangeReversePath(b'other@example.net')",
        ]
        fields = [b"Subject: x", b"X-Gone: 1", b"X-Gone: 2", *(b"X-Do: " + one for one in do)]
        smtp.sendmail("a@example.net", ["alice@example.org"], b"\r\n".join(fields) + b"\r\n\r\nbody\r\n" + filler)
        (alice,) = gateway.await_mails("alice")
        (bob,) = gateway.await_mails("bob")
        for mail in (alice, bob):
            assert mail.startswith(b"Return-Path: <other@example.net>")
            header, _, body = mail.partition(b"\n\n") if b"\r\n\r\n" not in mail else mail.partition(b"\r\n\r\n")
            assert body.replace(b"\r\n", b"\n") == (b"body\r\n" + filler).replace(b"\r\n", b"\n")
            names = [line.partition(b":")[0].strip() for line in header.splitlines() if line[:1] not in (b" ", b"\t")]
            start = names.index(b"Authentication-Results")
            assert names[start + 1] == b"Received"
            assert names[start + 2 : start + 5] == [b"X-First", b"subject", b"X-Gone"]
            assert names[-1] == b"X-Last"
            assert names.count(b"X-Gone") == 1
            assert b"[spam] x\n folded" in header.replace(b"\r\n", b"\n")
        # another body, hold, and smuggling
        smtp.sendmail(
            "a@example.net", ["carol@example.org"],
            b"X-Do: ReplaceBody((b'new\\n.\\r\\nMAIL FROM:<>\\r', b'\\nend'))\r\n\r\nold\r\n" + filler,
        )  # fmt: skip
        (carol,) = gateway.await_mails("carol")
        assert carol.replace(b"\r\n", b"\n").endswith(b"\n\nnew\n.\nMAIL FROM:<>\nend\n")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            smtp.sendmail(
                "a@example.net", ["carol@example.org"],
                b"X-Do: AddHeader(b'X', b'1\\r\\nBcc: eve@example.org')\r\n\r\nold\r\n" + filler,
            )  # fmt: skip
        assert refused.value.smtp_code == 451
        smtp.sendmail(
            "a@example.net", ["dora@example.org"], b"X-Do: Hold('looks odd')\r\n\r\nheld\r\n" + filler
        )  # fmt: skip
        smtp.sendmail("a@example.net", ["eve@example.org"], b"X-Do: Discard('junk')\r\n\r\ngone\r\n" + filler)
        (held,) = wait_until("only the held mail is in the queue", lambda: q if len(q := gateway.queue() or []) == 1 else [], 20)
        assert held.queue_name == "hold"
        assert "looks odd" in str(held)
        assert gateway.metric("smtpd_messages_total", result="discarded") == 1
        assert gateway.mail_paths("eve") == []


def test_who_talks_before_the_greeting_is_refused_and_who_waits_waits_once(tmp_path: Path) -> None:
    checks = policy({"name": "pregreet", "wait": "300 ms", "teaser": "mx.example.net wait"})
    with running_gateway(tmp_path, checks) as gateway:
        with socket.create_connection((gateway.host, gateway.port), 20) as sock, sock.makefile("rb") as file:
            sock.sendall(b"EHLO bot.example\r\n")
            assert file.readline() == b"220-mx.example.net wait\r\n"
            assert file.readline() == b"521 5.5.1 Protocol error: you spoke before your turn\r\n"
            assert file.readline() == b""
        with socket.create_connection((gateway.host, gateway.port), 20) as sock, sock.makefile("rb") as file:
            assert file.readline() == b"220-mx.example.net wait\r\n"
            assert file.readline().startswith(b"220 mx.example.net")
        for _ in range(6):  # whichever worker it meets
            with socket.create_connection((gateway.host, gateway.port), 20) as sock, sock.makefile("rb") as file:
                assert file.readline().startswith(b"220 mx.example.net")
        assert gateway.metric("smtpd_connections_denied_total", reason="pregreet") == 1
        assert gateway.metric("smtpd_protocol_violations_total", kind="early_talker") == 1


def test_overrides_by_domain_one_class_a_transaction(tmp_path: Path, desk: Desk) -> None:
    overrides = [
        {"domains": ["strict.example"], "tls_required": True},
        {"domains": ["small.example"], "message_size": 2000, "checks_off": ["access"]},
    ]
    checks = policy(
        {"name": "access", "rules": ["recipient small.example reject", "recipient big.example reject"]}, override=overrides
    )
    with running_gateway(tmp_path, checks) as gateway, client(gateway) as smtp:
        smtp.ehlo()
        smtp.mail("a@example.net", ["SIZE=1000"])
        assert smtp.rcpt("alice@strict.example")[0] == 530
        assert smtp.rcpt("alice@big.example")[0] == 550
        assert smtp.rcpt("alice@small.example")[0] == 250
        assert smtp.rcpt("alice@example.org")[:2] == (452, b"4.5.3 Error: recipient needs a transaction of its own")
        assert smtp.data(b"Subject: x\r\n\r\n" + b"123456789\r\n" * 300)[0] == 552
        smtp.mail("a@example.net", ["SIZE=2001"])
        assert smtp.rcpt("alice@small.example")[0] == 552


def test_hup_reads_lists_anew_and_a_bad_list_changes_nothing(tmp_path: Path) -> None:
    rules = tmp_path / "access"
    rules.write_text("# nobody yet\nsender nobody.example reject\n")
    with running_gateway(tmp_path, policy({"name": "access", "file": str(rules)})) as gateway:
        with client(gateway) as smtp:
            smtp.ehlo()
            assert smtp.mail("a@example.net")[0] == 250
        rules.write_text("sender example.net reject 550 5.7.1 Not you\n")
        gateway.signal(signal.SIGHUP)
        wait_until("the reload took effect", lambda: "reloaded" in gateway.log_text() or _refuses(gateway), 30)
        wait_until("the new list holds", lambda: _refuses(gateway), 30)
        rules.write_text("sender example.net rejekt\n")
        gateway.signal(signal.SIGHUP)
        wait_until("the reload failed", lambda: gateway.metric("smtpd_config_last_reload_success") == 0, 30)
        assert _refuses(gateway)


def _refuses(gateway: Gateway) -> bool:
    with client(gateway) as smtp:
        smtp.ehlo()
        return smtp.mail("a@example.net")[0] == 550
