# SPDX-License-Identifier: MIT
"""What the Makefile and the workflows are worked on with; nothing here is part of a product."""
