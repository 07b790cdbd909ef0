# SPDX-License-Identifier: MIT
"""Other people's test suites in the lab: the examples whose tests are not ours."""
