# SPDX-License-Identifier: MIT
"""Programs that are not pytest: executables whose exit status or TAP says what they found.

Standard library only below `items`, which makes pytest items of them: a guest imports it.
"""
