# SPDX-License-Identifier: MIT
"""cffi's build hook is a setup() keyword with no pyproject.toml spelling (cffi 2.1)."""

from setuptools import setup

setup(cffi_modules=["ioxide/_ring/build.py:ffi"])
