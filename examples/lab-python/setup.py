# SPDX-License-Identifier: MIT
from setuptools import Extension, setup

setup(ext_modules=[Extension("lastwords._pidfd", ["src/lastwords/_pidfd.c"])])
