# SPDX-License-Identifier: Apache-2.0
"""`lmcache-plugins check`: show which plugins would run, where, and with which command.

Runs in the command line's process.
Imports what the command line may import; `report` collects the findings, `command` prints them.
"""
