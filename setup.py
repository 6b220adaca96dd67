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

extensions = [
    Extension("smtpd._parser", ["smtpd/_parser.pyx"], extra_compile_args=flags, define_macros=macros),
    Extension("smtpd._io", ["smtpd/_io.pyx"], extra_compile_args=flags, define_macros=macros),
    Extension("smtpd.metrics._cells", ["smtpd/metrics/_cells.pyx"], extra_compile_args=flags, define_macros=macros),
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={"language_level": 3, "linetrace": is_traced, "warn.unused": True},
        build_dir="build/cython",
    )
)
