# SPDX-License-Identifier: Apache-2.0
"""`lmcache-plugins status`: show the plugins of all engines of this host.

Runs in the command line's process.
Imports what the command line may import; `report` collects the values, `command` prints them.
"""
