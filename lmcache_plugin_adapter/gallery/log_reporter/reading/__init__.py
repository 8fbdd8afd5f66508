# SPDX-License-Identifier: Apache-2.0
"""Follow the engine's log files and assemble their lines to records.

Runs in the log reporter's process, in one thread for each target. Imports msgspec and the
standard library; knows no target.
"""
