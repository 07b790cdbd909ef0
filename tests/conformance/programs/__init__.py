# SPDX-License-Identifier: MIT
"""Programs as people run them: ``python -m tests.conformance.programs.NAME LOOP tcp|tls``.

Each exits with status 0 when its own check of the result held, and asserts otherwise.
"""
