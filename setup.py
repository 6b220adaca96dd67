"""Builds the Cython core: `_parser` (bytes to lines and bodies) and `_io` (system calls that keep the GIL).

Warnings are errors, for Cython and for the C compiler. SMTPD_LINETRACE=1 gives a build that coverage can follow.
"""

import os

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

Options.warning_errors = True
is_traced = bool(os.environ.get("SMTPD_LINETRACE"))
macros = [("CYTHON_TRACE_NOGIL", "1")] if is_traced else []
flags = ["-O2", "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unreachable-code"]

# Written as .pyx: the parser, system calls, counter cells. The other modules are ordinary Python that is compiled as it stands,
# with the C types of the .pxd beside it: what runs for each command and each mail (docs/decisions/compiled-core.md).
MODULES = {
    "smtpd._parser": "smtpd/_parser.pyx",
    "smtpd._scan": "smtpd/_scan.pyx",
    "smtpd._io": "smtpd/_io.pyx",
    "smtpd.metrics._cells": "smtpd/metrics/_cells.pyx",
    "smtpd.mail.reply": "smtpd/mail/reply.py",
    "smtpd.mail.verdict": "smtpd/mail/verdict.py",
    "smtpd.net.loop": "smtpd/net/loop.py",
    "smtpd.net.stream": "smtpd/net/stream.py",
    "smtpd.proto.events": "smtpd/proto/events.py",
    "smtpd.proto.transaction": "smtpd/proto/transaction.py",
    "smtpd.proto.dialogue": "smtpd/proto/dialogue.py",
    "smtpd.proto.content": "smtpd/proto/content.py",
    "smtpd.proto.commands": "smtpd/proto/commands.py",
    "smtpd.proto.session": "smtpd/proto/session.py",
    "smtpd.worker.account": "smtpd/worker/account.py",
    "smtpd.worker.service": "smtpd/worker/service.py",
    "smtpd.worker.connection": "smtpd/worker/connection.py",
}

extensions = [Extension(name, [path], extra_compile_args=flags, define_macros=macros) for name, path in MODULES.items()]
directives = {
    "language_level": 3,
    "linetrace": is_traced,
    "warn.unused": False,
    "annotation_typing": False,  # types are the .pxd's; annotations are for mypy
}

setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        extensions,
        compiler_directives=directives,
        build_dir="build/cython",
    )
)
