"""Servers that others wrote and that `bench/install-peers` installs: aiosmtpd, Haraka, smtp-server, go-smtp.

All take every mail and discard it; what of ours makes them do so is under bench/peers/. None of them is durable.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from bench.processes import NotReadyError
from bench.servers import ROOT, Server

PEERS = ROOT / "bench" / "peers"
INSTALLED = ROOT / "var" / "bench-peers"  # where bench/install-peers puts what is not a Debian package
HOW = "bench/install-peers"


class Aiosmtpd(Server):
    """aiosmtpd with a handler that returns 250."""

    name = "aiosmtpd"
    weight = 0.05
    most_sessions = 1000
    packages: tuple[str, ...] = ("aiosmtpd",)
    extra: tuple[str, ...] = ()

    def missing(self) -> str:
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return f"{package} is not installed ({HOW})"
        return ""

    def version(self) -> str:
        numbers = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in self.packages)
        return f"{numbers}, Python {platform.python_version()}"

    def command(self) -> list[str]:
        return [sys.executable, str(PEERS / "aiosmtpd_peer.py"), self.host, str(self.port), *self.extra]


class AiosmtpdUvloop(Aiosmtpd):
    """The same on uvloop."""

    name = "aiosmtpd-uvloop"
    weight = 0.06
    packages = ("aiosmtpd", "uvloop")
    extra = ("uvloop",)


class NodeServer(Server):
    """What the servers from npm have in common."""

    package = ""
    most_sessions = 1000

    def missing(self) -> str:
        if shutil.which("node") is None:
            return f"node is not installed ({HOW})"
        return "" if self.folder_of_package.is_dir() else f"npm's {self.package} is not installed ({HOW})"

    @property
    def folder_of_package(self) -> Path:
        return INSTALLED / "node_modules" / self.package

    def version(self) -> str:
        number = json.loads((self.folder_of_package / "package.json").read_text())["version"]
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=False).stdout.strip()
        return f"{number}, node {node.removeprefix('v')}"


class SmtpServer(NodeServer):
    """nodemailer's smtp-server, one process."""

    name = "smtp-server"
    package = "smtp-server"
    weight = 0.15

    def environment(self) -> dict[str, str]:
        return {"NODE_PATH": str(INSTALLED / "node_modules")}

    def command(self) -> list[str]:
        return ["node", str(PEERS / "nodemailer" / "server.js"), self.host, str(self.port)]


class Haraka(NodeServer):
    """Haraka with nodes=0 (one process), a plugin that accepts any recipient, and queue/discard."""

    name = "haraka"
    package = "Haraka"
    weight = 0.06

    def environment(self) -> dict[str, str]:
        return {"YES_REALLY_DO_DISCARD": "1"}  # queue/discard asks for it

    def command(self) -> list[str]:
        place = self.folder / "haraka"
        shutil.copytree(PEERS / "haraka", place)
        shutil.copy(self.folder_of_package / "config" / "connection.ini", place / "config")
        (place / "config" / "smtp.ini").write_text(f"listen={self.host}:{self.port}\nnodes=0\n")
        return ["node", str(self.folder_of_package / "bin" / "haraka"), "-c", str(place)]


class GoSmtp(Server):
    """go-smtp as Debian has it, on all cores as Go does by default; built from Debian's sources, offline."""

    name = "go-smtp"
    weight = 0.4
    _go_path = Path("/usr/share/gocode")
    _package = "golang-github-emersion-go-smtp-dev"

    def missing(self) -> str:
        if shutil.which("go") is None:
            return f"Go is not installed ({HOW})"
        there = (self._go_path / "src/github.com/emersion/go-smtp").is_dir()
        return "" if there else f"{self._package} is not installed ({HOW})"

    def version(self) -> str:
        show = ["dpkg-query", "-W", "-f", "${Version}", self._package]
        number = subprocess.run(show, capture_output=True, text=True, check=False).stdout.partition("-")[0]
        go = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout.strip()
        return f"{number}, {go}"

    def command(self) -> list[str]:
        program = self.folder / "go-smtp"
        offline = {
            "GO111MODULE": "off",
            "GOFLAGS": "",
            "GOPATH": str(self._go_path),
            "GOCACHE": str(INSTALLED / "go-cache"),
            "CGO_ENABLED": "0",
        }
        build = subprocess.run(
            ["go", "build", "-o", str(program), "main.go"],
            cwd=PEERS / "go_smtp",
            env={**os.environ, **offline},
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        if build.returncode:
            raise NotReadyError(f"go build: {build.stderr.strip()[-300:]}")
        return [str(program), f"{self.host}:{self.port}"]
