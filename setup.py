"""Builds the compiled core: the modules that smtpd/compiled.py names.

Warnings are errors, for Cython and for the C compiler. SMTPD_LINETRACE=1 gives a build that coverage can follow.
"""

import os
import runpy

from Cython.Build import cythonize
from Cython.Compiler import Options
from setuptools import Extension, setup

Options.warning_errors = True
is_traced = bool(os.environ.get("SMTPD_LINETRACE"))
macros = [("CYTHON_TRACE_NOGIL", "1")] if is_traced else []
flags = ["-O2", "-Wall", "-Werror", "-Wno-unused-function", "-Wno-unreachable-code", "-g0", "-fno-plt"]

MODULES = runpy.run_path("smtpd/compiled.py")["MODULES"]


def source_of(module: str) -> str:
    stem = module.replace(".", "/")
    return stem + (".pyx" if os.path.exists(stem + ".pyx") else ".py")


extensions = [Extension(name, [source_of(name)], extra_compile_args=flags, define_macros=macros) for name in MODULES]
directives = {
    "language_level": 3,
    "linetrace": is_traced,
    "warn.unused": False,
    "auto_pickle": False,
    "binding": False,  # plain functions: nobody looks at their signatures
    "annotation_typing": False,  # types are the .pxd's; annotations are for mypy
}

setup(
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
    ext_modules=cythonize(
        extensions,
        compiler_directives=directives,
        build_dir="build/cython",
    ),
)
