"""Which modules are compiled: the one list that the build, the start-up check and the tests go by. A leaf.

Those with a .pyx are written in Cython. The others are ordinary Python that is compiled as it stands, with the C types of the
.pxd beside it: what runs for each command and each mail (docs/decisions/compiled-core.md). All or none: a process that finds
some of them missing says so and does not start.
"""

from __future__ import annotations

import os
from importlib.machinery import EXTENSION_SUFFIXES

MODULES = (
    "smtpd._parser",
    "smtpd._scan",
    "smtpd._tally",
    "smtpd._text",
    "smtpd._io",
    "smtpd._wire",
    "smtpd.metrics._cells",
    "smtpd.limits._clients",
    "smtpd.log.escape",
    "smtpd.log.maillog",
    "smtpd.log.shape",
    "smtpd.log.stamp",
    "smtpd.mail.queue_id",
    "smtpd.mail.reply",
    "smtpd.mail.verdict",
    "smtpd.net.loop",
    "smtpd.net.stream",
    "smtpd.policy.relay",
    "smtpd.policy.question",
    "smtpd.policy.pipeline",
    "smtpd.policy.inspection",
    "smtpd.proto.events",
    "smtpd.proto.replies",
    "smtpd.proto.rules",
    "smtpd.proto.trace",
    "smtpd.proto.transaction",
    "smtpd.proto.dialogue",
    "smtpd.proto.content",
    "smtpd.proto.commands",
    "smtpd.proto.session",
    "smtpd.spool._group",
    "smtpd.spool.discard",
    "smtpd.spool.gathering",
    "smtpd.spool.sqlite",
    "smtpd.spool.writer",
    "smtpd.load.histogram",
    "smtpd.load.recorder",
    "smtpd.load.offer",
    "smtpd.load.messages",
    "smtpd.load.maker",
    "smtpd.load.connection",
    "smtpd.load.crew",
    "smtpd.worker.account",
    "smtpd.worker.service",
    "smtpd.worker.connection",
    "smtpd.spool.item",
    "smtpd.proto.client.rules",
    "smtpd.proto.client.extensions",
    "smtpd.proto.client.transmission",
    "smtpd.proto.client.events",
    "smtpd.proto.client.verdicts",
    "smtpd.proto.client.commands",
    "smtpd.proto.client.session",
    "smtpd.transports.relay.delivery",
    "smtpd.transports.relay.health",
    "smtpd.transports.relay.link",
    "smtpd.transports.relay.pool",
    "smtpd.transports.relay.transport",
    "smtpd.delivery.destination",
    "smtpd.delivery.lane",
    "smtpd.delivery.attempt",
    "smtpd.delivery.scheduler",
    "smtpd.delivery.router",
)

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def path_of(module: str, suffix: str) -> str:
    """The file of a module with this suffix, whether it is there or not."""
    return os.path.join(_ROOT, *module.split(".")) + suffix


def find_unbuilt() -> list[str]:
    """Return the modules that have no extension file beside their source."""
    return [name for name in MODULES if not any(os.path.exists(path_of(name, suffix)) for suffix in EXTENSION_SUFFIXES)]


def find_stale() -> list[str]:
    """Return the modules whose extension is older than their source, or left over: it would hide the source without a word."""
    stale = []
    for name in MODULES:
        built = [os.path.getmtime(path) for suffix in EXTENSION_SUFFIXES if os.path.exists(path := path_of(name, suffix))]
        sources = [os.path.getmtime(path) for suffix in (".py", ".pyx", ".pxd") if os.path.exists(path := path_of(name, suffix))]
        if built and max(sources, default=0.0) > max(built):
            stale.append(name)
    return stale + _find_left_over()


def _find_left_over() -> list[str]:
    """Extensions of modules that are compiled no more: they would still be imported in place of the source."""
    left_over = []
    for folder, _, files in os.walk(os.path.join(_ROOT, "smtpd")):
        for file in files:
            suffix = next((suffix for suffix in EXTENSION_SUFFIXES if file.endswith(suffix)), "")
            stem = os.path.join(folder, file.removesuffix(suffix)) if suffix else ""
            name = os.path.relpath(stem, _ROOT).replace(os.sep, ".") if stem else ""
            if name and name not in MODULES:
                left_over.append(name)
    return left_over
