"""`smtpd sink` with TLS, and `smtpd load` against it: both ways in, a certificate of one's own or one made on the spot."""

from __future__ import annotations

import json
import smtplib
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from gateway import PROGRAM
from sink_rig import RunningSink
from tls_files import NAME, Authority


def run_load(sink: RunningSink, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [PROGRAM, "load", sink.address, "-m", "20", "-s", "4", "--json", "-", *options],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, report["errors"]) == (0, {}), done.stderr
    return report


@pytest.mark.parametrize(
    ("option", "client", "keeps"),
    [("--tls", "--tls", True), ("--tls", "--tls", False), ("--tls-implicit", "--tls-implicit", False)],
)
def test_load_sends_over_tls(tmp_path: Path, option: str, client: str, keeps: bool) -> None:
    with RunningSink(tmp_path, option) as sink:
        run_load(sink, client, *(["-d"] if keeps else []))
        sink.stop()
    assert sink.report["mails"] == 20
    assert sink.report["commands"].get("starttls", 0) == (0 if client == "--tls-implicit" else 4 if keeps else 20)


def test_a_certificate_of_ones_own_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("own")
    with RunningSink(tmp_path, "--tls", "--tls-cert", str(pair.cert), "--tls-key", str(pair.key)) as sink:
        run_load(sink, "--tls", "--tls-verify", "--tls-ca", str(authority.file), "--tls-name", NAME)


def test_required_means_that_mail_in_the_clear_is_refused(tmp_path: Path) -> None:
    with RunningSink(tmp_path, "--tls-required") as sink, sink.smtp() as smtp:
        smtp.ehlo()
        assert smtp.mail("a@example.com")[0] == 530
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        smtp.starttls(context=context)
        assert isinstance(smtp, smtplib.SMTP)
        smtp.ehlo()
        assert smtp.mail("a@example.com")[0] == 250


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--tls", "--tls-implicit"), "one of --tls, --tls-required and --tls-implicit"),
        (("--tls-cert", "x.pem"), "--tls-cert and --tls-key need --tls"),
        (("--tls", "--tls-key", "x.key"), "--tls-key needs --tls-cert"),
        (("--tls", "--tls-cert", "none.pem"), "none.pem: No such file or directory"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [PROGRAM, "sink", "127.0.0.1:0", *options], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode != 0
    assert said in done.stderr
