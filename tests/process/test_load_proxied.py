"""`smtpd load --proxy` and `--xclient` at a gateway that knows us as a front end: many clients from one machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gateway import Gateway, running_gateway, wait_until


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_gateway_behind_a_front_end_is_loaded_as_by_many_clients(tmp_path: Path, version: str) -> None:
    probe = Gateway(tmp_path / "unused")
    listener = {"name": "mx", "address": f"{probe.host}:{probe.port}", "proxy_protocol": ["127.0.0.0/8"]}
    settings = {"listener": [listener], "limits": {"mail_rate": "2/d"}, "policy": {"trusted": ["198.51.100.1"]}}
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        command = [
            sys.executable, "-m", "smtpd", "load", "--json", "-", "-m", "8", "-s", "2", "--workers", "2",
            "--proxy", version, "--proxy-clients", "192.0.2.0/30", listener["address"],
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["mails"]["accepted"] == 8
        for host in range(4):  # two mails of each: more would have been too many
            wait_until(
                "the client in the log", lambda n=host: gateway.log_text(40000).count(f"client=unknown[192.0.2.{n}]") == 2, 20
            )
        own = subprocess.run([*command[:-3], listener["address"]], capture_output=True, text=True, timeout=60, check=False)
        assert own.returncode == 1, own.stderr  # ourselves, from the third mail on
        assert json.loads(own.stdout)["mails"]["accepted"] == 2


def load(*arguments: str) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "smtpd", "load", "--json", "-", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return result.returncode, json.loads(result.stdout)


def test_a_gateway_is_loaded_as_by_many_clients_that_xclient_names(tmp_path: Path) -> None:
    probe = Gateway(tmp_path / "unused")
    listener = {"name": "mx", "address": f"{probe.host}:{probe.port}", "xclient": ["127.0.0.0/8"]}
    settings = {"listener": [listener], "limits": {"mail_rate": "2/d"}, "policy": {"trusted": ["198.51.100.1"]}}
    with running_gateway(tmp_path / "gateway", settings) as gateway:
        code, report = load("-m", "8", "-s", "2", "--workers", "2", "--xclient", "2001:db8:0:0::/126", listener["address"])
        assert (code, report["mails"]["accepted"]) == (1, 2), "a /126 is one client"
        code, report = load("-m", "8", "-s", "2", "--workers", "2", "--xclient", "192.0.2.0/30", listener["address"])
        assert (code, report["mails"]["accepted"], report["errors"]) == (0, 8, {})
        assert report["connections"]["opened"] == 8
        for host in range(4):
            wait_until(
                "the client in the log", lambda n=host: gateway.log_text(40000).count(f"client=unknown[192.0.2.{n}]") == 2, 20
            )


def test_a_target_that_lets_nobody_name_clients_is_told_by_its_reply(tmp_path: Path) -> None:
    with running_gateway(tmp_path) as gateway:
        code, report = load("-m", "1", "--xclient", "192.0.2.7", f"{gateway.host}:{gateway.port}")
        assert code == 69
        assert list(report["errors"]) == ["hello 550"]
