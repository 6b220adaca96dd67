"""TLS of a running server: both ways in, certificates by name, clients' certificates, tickets over workers, and reloads."""

from __future__ import annotations

import contextlib
import signal
import smtplib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, free_port, own_loopback_address, running_gateway, wait_until
from mail_clients import MailLoad
from tls_files import NAME, OTHER, Authority

LISTENERS = ("mx", "need", "smtps", "other", "asks", "proxied")
MAIL = "Subject: x\r\n\r\ntext\r\n"


class TlsGateway:
    """A gateway with a listener for each mode; `ports` by their names."""

    def __init__(self, gateway: Gateway, authority: Authority, ports: dict[str, int]) -> None:
        self.gateway = gateway
        self.authority = authority
        self.ports = ports

    def plain(self, listener: str = "mx") -> smtplib.SMTP:
        smtp = smtplib.SMTP(self.gateway.host, self.ports[listener], "client.example", timeout=20)
        smtp._host = NAME  # type: ignore[attr-defined]  # the name to ask and check for
        return smtp

    @contextlib.contextmanager
    def secured(self, listener: str = "mx", context: ssl.SSLContext | None = None) -> Iterator[smtplib.SMTP]:
        """Closed without QUIT at the end."""
        with contextlib.closing(self.plain(listener)) as smtp:
            smtp.starttls(context=context or self.authority.client_context())
            yield smtp

    @contextlib.contextmanager
    def shake(
        self, context: ssl.SSLContext, listener: str = "smtps", name: str = NAME, session: ssl.SSLSession | None = None
    ) -> Iterator[ssl.SSLSocket]:
        """A connection to a listener of implicit TLS, greeted: its ticket has come by then."""
        with (
            socket.create_connection((self.gateway.host, self.ports[listener]), timeout=20) as sock,
            context.wrap_socket(sock, server_hostname=name, session=session) as tls,
        ):
            assert tls.recv(1000).startswith(b"220 ")
            yield tls

    def handshakes(self, **labels: str) -> float:
        return self.gateway.metric("smtpd_tls_handshakes_total", **labels)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def settings_of(authority: Authority, ports: dict[str, int], host: str) -> dict[str, Any]:
    modes = {
        "mx": "starttls",
        "need": "required",
        "smtps": "implicit",
        "other": "implicit",
        "asks": "starttls",
        "proxied": "implicit",
    }
    pairs = [authority.issue("mx"), authority.issue("mx-rsa", is_rsa=True), authority.issue("other", OTHER)]
    return {
        "listener": [
            {"name": name, "address": f"{host}:{ports[name]}", "tls": mode, "client_certificates": "require"}
            if name == "asks"
            else {"name": name, "address": f"{host}:{ports[name]}", "tls": mode, "proxy_protocol": ["127.0.0.0/8"]}
            if name == "proxied"
            else {"name": name, "address": f"{host}:{ports[name]}", "tls": mode}
            for name, mode in modes.items()
        ],
        "tls": {
            "client_ca": str(authority.file),
            "certificate": [pair.settings for pair in pairs],
        },
    }


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsGateway]:
    host = own_loopback_address()
    ports = {name: free_port(host) for name in LISTENERS}
    with running_gateway(tmp_path_factory.mktemp("tls"), settings_of(authority, ports, host)) as gateway:
        yield TlsGateway(gateway, authority, ports)


def test_starttls_takes_a_mail_and_says_so(server: TlsGateway) -> None:
    with server.plain() as smtp:
        smtp.ehlo()
        assert smtp.has_extn("starttls")
        smtp.starttls(context=server.authority.client_context(version=ssl.TLSVersion.TLSv1_2))
        assert smtp.mail("a@example.com")[0] == 503, "what was said in the clear is forgotten"
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        smtp.sendmail("a@example.com", ["starttls@example.org"], MAIL)
    (mail,) = server.gateway.await_mails("starttls")
    header = mail.decode().partition("\n\n")[0]
    assert "\n\t(using TLSv1.2 with cipher ECDHE-ECDSA-AES256-GCM-SHA384 (256/256 bits))\n" in header
    assert "\n\t(No client certificate requested)\n\tby mx.example.net (smtpd) with ESMTPS id " in header
    log = "Anonymous TLS connection established from unknown[127."
    wait_until("the log line", lambda: log in server.gateway.log_text(1 << 20), 20)
    assert "]: TLSv1.2 with cipher ECDHE-ECDSA-AES256-GCM-SHA384 (256/256 bits)\n" in server.gateway.log_text(1 << 20)
    assert server.handshakes(listener="mx", mode="starttls", version="1.2", result="ok") == 1


def test_implicit_tls_takes_a_mail(server: TlsGateway) -> None:
    context = server.authority.client_context()
    context.check_hostname = False
    with smtplib.SMTP_SSL(server.gateway.host, server.ports["smtps"], "client.example", context=context, timeout=20) as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("starttls")
        smtp.sendmail("a@example.com", ["implicit@example.org"], MAIL + "line\r\n" * 100_000)
    (mail,) = server.gateway.await_mails("implicit")
    assert mail.count(b"line\n") == 100_000
    assert b"(using TLSv1.3 with cipher " in mail
    assert server.handshakes(listener="smtps", mode="implicit", version="1.3", result="ok") >= 1


def test_required_refuses_mail_in_the_clear(server: TlsGateway) -> None:
    with server.plain("need") as smtp:
        smtp.ehlo()
        assert smtp.mail("a@example.com") == (530, b"5.7.0 Must issue a STARTTLS command first")
    with server.secured("need") as smtp:
        smtp.ehlo()
        assert smtp.mail("a@example.com")[0] == 250


@pytest.mark.parametrize(("cipher", "kind"), [("ECDHE-RSA-AES128-GCM-SHA256", "rsa"), ("ECDHE-ECDSA-AES128-GCM-SHA256", "ec")])
def test_each_client_gets_the_kind_of_key_that_it_knows(server: TlsGateway, cipher: str, kind: str) -> None:
    context = server.authority.client_context(version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(cipher)
    with server.shake(context) as tls:
        file = "mx-rsa.pem" if kind == "rsa" else "mx.pem"
        assert tls.getpeercert(binary_form=True) == first_der(server.authority.folder / file)


@pytest.mark.parametrize(
    ("name", "file"), [(NAME, "mx.pem"), (OTHER, "other.pem"), (OTHER.upper(), "other.pem"), ("x.test", "mx.pem")]
)
def test_the_certificate_follows_the_name(server: TlsGateway, name: str, file: str) -> None:
    context = server.authority.client_context()
    context.check_hostname = False
    with server.shake(context, name=name) as tls:
        assert tls.getpeercert(binary_form=True) == first_der(server.authority.folder / file)


def test_a_client_certificate_is_in_received_and_log(server: TlsGateway) -> None:
    own = server.authority.issue("client", "sender.example.com")
    with server.secured("asks", server.authority.client_context(own)) as smtp:
        smtp.sendmail("a@example.com", ["asks@example.org"], MAIL)
    (mail,) = server.gateway.await_mails("asks")
    assert b'(Client CN "' in mail
    assert b'" (verified OK))' in mail
    wait_until("the log line", lambda: "Trusted TLS connection established from" in server.gateway.log_text(1 << 20), 20)


def test_without_a_wanted_certificate_the_session_is_over(server: TlsGateway) -> None:
    before = server.handshakes(listener="asks", result="error")
    smtp = server.plain("asks")
    with contextlib.closing(smtp), pytest.raises((OSError, smtplib.SMTPException)):  # noqa: PT012 - in TLS 1.3 it comes late
        smtp.starttls(context=server.authority.client_context())
        smtp.noop()
        smtp.noop()
    wait_until("it is counted", lambda: server.handshakes(listener="asks", result="error") == before + 1, 20)
    ended = {"listener": "asks", "reason": "tls_error"}
    wait_until("it has ended", lambda: server.gateway.metric("smtpd_sessions_ended_total", **ended) == 1, 20)


def test_a_ticket_is_good_at_every_worker_and_at_no_other_listener(server: TlsGateway) -> None:
    context = server.authority.client_context()
    with server.shake(context) as tls:
        session = tls.session
    served: set[int] = set()

    def find_both() -> bool:
        """Workers have no name in the protocol: their logs say who was connected to."""
        with server.shake(context, session=session) as tls:
            assert tls.session_reused
        lines = [line for line in server.gateway.log_text(1 << 20)[begin:].splitlines() if "TLS connection established" in line]
        served.update(int(line.partition("postfix/smtpd[")[2].partition("]")[0]) for line in lines)
        return len(served) == 2

    begin = len(server.gateway.log_text(1 << 20))
    wait_until("both workers have served", find_both, 30)
    with server.shake(context, "other", session=session) as tls:
        assert not tls.session_reused


def test_octets_in_the_clear_behind_starttls_are_no_commands(server: TlsGateway) -> None:
    """CVE-2011-0411, with the injection after our 220: it is taken for a handshake."""
    before = server.handshakes(listener="mx", result="error")
    with socket.create_connection((server.gateway.host, server.ports["mx"]), timeout=20) as sock:
        file = sock.makefile("rb")
        assert file.readline().startswith(b"220")
        sock.sendall(b"STARTTLS\r\n")
        assert file.readline().startswith(b"220 2.0.0")
        sock.sendall(b"RSET\r\nMAIL FROM:<evil@example.com>\r\n")
        rest = file.read()
    assert b"250" not in rest
    wait_until("it is counted", lambda: server.handshakes(listener="mx", result="error") == before + 1, 20)


def test_a_proxy_header_comes_in_the_clear_before_implicit_tls(server: TlsGateway) -> None:
    context = server.authority.client_context()
    with socket.create_connection((server.gateway.host, server.ports["proxied"]), timeout=20) as sock:
        sock.sendall(b"PROXY TCP4 192.0.2.77 192.0.2.1 4711 465\r\n")
        with context.wrap_socket(sock, server_hostname=NAME) as tls:
            assert tls.recv(1000).startswith(b"220 ")
    line = "Anonymous TLS connection established from unknown[192.0.2.77]: TLSv1.3"
    wait_until("the log line", lambda: line in server.gateway.log_text(1 << 20), 20)


@pytest.fixture(scope="module")
def impatient(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsGateway]:
    """No handshake can be sure to end here."""
    host = own_loopback_address()
    ports = {name: free_port(host) for name in LISTENERS}
    settings = settings_of(authority, ports, host) | {"workers": 1}
    settings["tls"]["handshake_timeout"] = "100 ms"
    with running_gateway(tmp_path_factory.mktemp("impatient"), settings) as gateway:
        yield TlsGateway(gateway, authority, ports)


@pytest.mark.parametrize("listener", ["mx", "smtps"])
def test_a_handshake_that_never_ends_has_its_time(impatient: TlsGateway, listener: str) -> None:
    server = impatient
    with socket.create_connection((server.gateway.host, server.ports[listener]), timeout=20) as sock:
        if listener == "mx":
            file = sock.makefile("rb")
            assert file.readline().startswith(b"220")
            sock.sendall(b"STARTTLS\r\n")
            assert file.readline().startswith(b"220 2.0.0")
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first octets of a record
        assert sock.recv(100) == b""
    wait_until("it is counted", lambda: server.handshakes(listener=listener, result="timeout") == 1, 20)


def first_der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n")


# --- reload --------------------------------------------------------------------------------------------------------------


def reload(server: TlsGateway, *, success: bool) -> None:
    gateway = server.gateway
    words = "serves on" if not success else "reload: generation"
    count, workers = gateway.log_text(1 << 20).count(words), gateway.worker_pids()
    gateway.write_config()
    gateway.signal(signal.SIGHUP)
    wait_until("the reload is over", lambda: gateway.log_text(1 << 20).count(words) == count + 1, 30)
    if success:
        gateway.await_left(workers)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[TlsGateway]:
    host = own_loopback_address()
    ports = {name: free_port(host) for name in LISTENERS}
    authority = Authority(tmp_path)
    settings = settings_of(authority, ports, host) | {"workers": 1}
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        yield TlsGateway(gateway, authority, ports)


def test_a_reload_brings_new_certificates_and_drops_no_session(own_server: TlsGateway) -> None:
    server, gateway = own_server, own_server.gateway
    authority = server.authority
    context = authority.client_context()
    with server.shake(context) as tls:
        session, first = tls.session, tls.getpeercert(binary_form=True)
    gateway.settings["limits"] = {"recipients": 500}
    reload(server, success=True)
    with server.shake(context, session=session) as tls:
        assert tls.session_reused, "the certificates have not changed"
    with server.secured() as old:
        old.ehlo()
        assert old.mail("a@example.com")[0] == 250
        assert old.rcpt("reload@example.org")[0] == 250
        authority.issue("mx", days=20)
        expiry = gateway.metric("smtpd_tls_certificate_expiry_timestamp_seconds", certificate=str(authority.folder / "mx.pem"))
        reload(server, success=True)
        with server.shake(context, session=session) as tls:
            assert not tls.session_reused
            assert tls.getpeercert(binary_form=True) == first_der(authority.folder / "mx.pem") != first
        assert old.data(MAIL)[0] == 250, "a transaction in flight is finished by the worker that began it"
    assert len(gateway.await_mails("reload")) == 1
    later = gateway.metric("smtpd_tls_certificate_expiry_timestamp_seconds", certificate=str(authority.folder / "mx.pem"))
    assert later > expiry > 0


def test_a_bad_key_keeps_the_old_certificate_and_is_told(own_server: TlsGateway) -> None:
    server, gateway = own_server, own_server.gateway
    folder = server.authority.folder
    first = first_der(folder / "mx.pem")
    (folder / "mx.key").write_bytes((folder / "other.key").read_bytes())
    reload(server, success=False)
    assert f"tls.certificate.key: {folder}/mx.key: not the key of the certificate {folder}/mx.pem" in gateway.log_text(1 << 20)
    assert gateway.metric("smtpd_config_last_reload_success") == 0
    with server.shake(server.authority.client_context()) as tls:
        assert tls.getpeercert(binary_form=True) == first
    server.authority.issue("mx")
    reload(server, success=True)
    assert gateway.metric("smtpd_config_last_reload_success") == 1
    with server.shake(server.authority.client_context()) as tls:
        assert tls.getpeercert(binary_form=True) != first


def test_new_certificates_under_load_cost_no_mail_and_no_connection(own_server: TlsGateway) -> None:
    server, gateway = own_server, own_server.gateway
    gateway.port = server.ports["mx"]
    context = server.authority.client_context()
    context.check_hostname = False
    with MailLoad(gateway, 2, context) as load:
        for _ in range(3):
            server.authority.issue("mx")
            reload(server, success=True)
            load.wait_acknowledged(10)
    assert load.trouble == []
    assert sorted(load.await_mails()) == sorted(load.acknowledged)
