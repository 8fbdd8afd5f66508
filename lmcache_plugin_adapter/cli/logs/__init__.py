# SPDX-License-Identifier: Apache-2.0
"""`lmcache-plugins logs`: print the last lines of plugins, and follow new lines.

Runs in the command line's process.
Imports what the command line may import; `run` prints plugins' lines with its `formats`.
"""
