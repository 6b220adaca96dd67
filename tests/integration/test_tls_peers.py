"""TLS with other people's programs: each gets a session, and testssl.sh finds nothing wrong with the default settings."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway import Gateway, free_port, own_loopback_address, running_gateway
from peers import require_peer
from tls_files import NAME, Authority

TIMEOUT_S = 100


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def gateway(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """STARTTLS on `port`, TLS from the first octet on `implicit`."""
    host = own_loopback_address()
    port, implicit = free_port(host), free_port(host)
    settings = {
        "listener": [
            {"name": "mx", "address": f"{host}:{port}", "tls": "starttls"},
            {"name": "smtps", "address": f"{host}:{implicit}", "tls": "implicit"},
        ],
        "tls": {"certificate": [authority.issue("ec").settings, authority.issue("rsa", is_rsa=True).settings]},
    }
    with running_gateway(tmp_path_factory.mktemp("tls"), settings) as running:
        running.port = port
        yield running


def address_of(gateway: Gateway, number: int = 0) -> str:
    return str(gateway.settings["listener"][number]["address"])


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return done.stdout + done.stderr


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_verifies_and_resumes(gateway: Gateway, authority: Authority, tmp_path: Path, version: str) -> None:
    program = require_peer("openssl", "openssl")
    ticket = tmp_path / "ticket.pem"
    common = (
        program, "s_client", "-starttls", "smtp", "-connect", address_of(gateway), "-servername", NAME, "-verify_return_error",
        "-CAfile", str(authority.file), "-verify_hostname", NAME, version, "-crlf", "-ign_eof",
    )  # fmt: skip
    first = run(*common, "-sess_out", str(ticket), stdin="QUIT\n")
    assert "Verify return code: 0 (ok)" in first
    assert "221 2.0.0" in first
    assert "New, " in first
    second = run(*common, "-sess_in", str(ticket), stdin="QUIT\n")
    assert "Reused, " in second, second


@pytest.mark.peer("openssl")
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_openssl_gets_no_old_version(gateway: Gateway, version: str) -> None:
    program = require_peer("openssl", "openssl")
    said = run(program, "s_client", "-connect", address_of(gateway, 1), version, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in said


@pytest.mark.peer("openssl")
def test_openssl_may_not_renegotiate(gateway: Gateway) -> None:
    program = require_peer("openssl", "openssl")
    command = (program, "s_client", "-connect", address_of(gateway, 1), "-tls1_2")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        for line in client.stdout:
            if line.startswith("220 "):  # else it may come in the midst of the handshake
                break
        client.stdin.write("R\n")
        client.stdin.close()
        said = client.stdout.read()
    assert "no renegotiation" in said


@pytest.mark.peer("postfix")
def test_posttls_finger_verifies(gateway: Gateway, authority: Authority, tmp_path: Path) -> None:
    program = require_peer("postfix", "posttls-finger")
    host, _, port = address_of(gateway).rpartition(":")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = client.example\nmail_owner = postfix\n")
    command = (program, "-c", "-l", "verify", "-F", str(authority.file), "-t", "20", f"[{host}]:{port}", NAME)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={"MAIL_CONFIG": str(tmp_path), "PATH": "/bin"},
    )
    assert "Verified TLS connection established to" in done.stdout + done.stderr, done.stdout + done.stderr


@pytest.mark.peer("swaks")
@pytest.mark.parametrize(("option", "number"), [("-tls", 0), ("-tlsc", 1)])
def test_swaks_sends_a_mail(gateway: Gateway, option: str, number: int) -> None:
    program = require_peer("swaks", "swaks")
    host, _, port = address_of(gateway, number).rpartition(":")
    user = f"swaks{option}"
    said = run(
        program, "--server", host, "--port", port, "--ehlo", "client.example.com", "--from", "a@example.com", "--to",
        f"{user}@example.org", option, "--timeout", "30",
    )  # fmt: skip
    (mail,) = gateway.await_mails(user)
    assert b"with ESMTPS id " in mail, said


NODE = """
const net = require('net'), tls = require('tls'), fs = require('fs');
const [host, port, ca, name] = process.argv.slice(1);
const steps = ['EHLO client.example\\r\\n', 'MAIL FROM:<a@example.com>\\r\\n', 'RCPT TO:<node@example.org>\\r\\n', 'DATA\\r\\n',
  'Subject: node\\r\\n\\r\\ntext\\r\\n.\\r\\n', 'QUIT\\r\\n'];
const plain = net.connect(port, host);
let clear = ['EHLO client.example\\r\\n', 'STARTTLS\\r\\n'];
plain.on('data', data => {
  if (!/^\\d{3} .*\\r\\n$/m.test(data.toString())) return;
  if (clear.length) { plain.write(clear.shift()); return; }
  plain.removeAllListeners('data');
  const secure = tls.connect({socket: plain, ca: fs.readFileSync(ca), servername: name}, () => secure.write(steps.shift()));
  secure.on('data', data => {
    if (!/^\\d{3} .*\\r\\n$/m.test(data.toString())) return;
    if (steps.length) { secure.write(steps.shift()); return; }
    console.log(secure.authorized, secure.getProtocol(), data.toString().trim());
  });
});
"""


@pytest.mark.peer("nodejs")
def test_node_sends_a_mail(gateway: Gateway, authority: Authority) -> None:
    program = require_peer("nodejs", "node")
    host, _, port = address_of(gateway).rpartition(":")
    assert run(program, "-e", NODE, host, port, str(authority.file), NAME).strip() == "true TLSv1.3 221 2.0.0 Bye"
    assert len(gateway.await_mails("node")) == 1


@pytest.mark.full
@pytest.mark.peer("testssl.sh")
@pytest.mark.timeout(1200)
def test_testssl_knows_no_weakness(gateway: Gateway, tmp_path: Path) -> None:
    """What it says of the certificate is left out: the test's CA is nobody's, and has no CRL."""
    program = require_peer("testssl.sh", "testssl")
    found = tmp_path / "found.json"
    options = (
        "--quiet",
        "--color",
        "0",
        "--warnings",
        "off",
        "--jsonfile",
        str(found),
        "-p",
        "-s",
        "-f",
        "-S",
        "-U",
        "-t",
        "smtp",
    )
    done = subprocess.run(
        [program, *options, address_of(gateway)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1100,
        check=False,
    )
    assert found.exists(), done.stdout + done.stderr
    findings = {entry["id"]: entry for entry in json.loads(found.read_text())}
    assert findings["heartbleed"]["severity"] == "OK"
    assert findings["secure_client_renego"]["severity"] == "OK"
    assert findings["TLS1_3"]["severity"] == "OK"
    weak = [
        f"{name}: {entry['severity']}: {entry['finding']}"
        for name, entry in findings.items()
        if entry["severity"] in ("LOW", "MEDIUM", "HIGH", "CRITICAL") and not name.startswith(("cert_", "DNS_CAArecord"))
    ]
    assert weak == []
