# SPDX-License-Identifier: Apache-2.0
"""The settings: their table, their validation, their reference page; the locations.

Runs in the supervisor's planning child, the command line, LMCache's server and plugins.
Imports `messages` and `contract`; the standard library only.
"""
