# SPDX-License-Identifier: Apache-2.0
"""Interfaces of Linux that Python's library lacks: /proc, system calls, the event loop.

Runs in every process of ours.
Imports nothing of this package.
"""
