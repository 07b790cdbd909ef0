# SPDX-License-Identifier: MIT
"""What pyproject.toml cannot say: every folder with an __init__.py is a package, and a build leaves
no trace. setuptools 80 writes build/ and *.egg-info beside its sources unless it is told of another
place."""

import atexit
import shutil
import tempfile
from pathlib import Path

from setuptools import setup

here = Path(__file__).parent
folders = sorted(path.parent.relative_to(here).parts for path in here.rglob("__init__.py"))
place = tempfile.mkdtemp(prefix="kernel-lab-build-")
atexit.register(shutil.rmtree, place, ignore_errors=True)
setup(
    script_name="setup.py",  # which is no module of the package
    packages=[".".join(("kernel_lab", *folder)) for folder in folders],
    options={"build": {"build_base": place}, "egg_info": {"egg_base": place}},
)
