# SPDX-License-Identifier: MIT
"""How fast the reactor is: a gate of counts for CI, and tables of times for a quiet machine.

``python -m bench gate`` counts instructions, system calls, posts and asyncio handles a request.
``python -m bench affinity`` measures the continuation modes against each other, ``python -m bench
peers`` other servers against ioxide.  A run that proved nothing exits with status 3.
"""
