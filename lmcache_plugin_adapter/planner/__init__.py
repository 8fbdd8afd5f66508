# SPDX-License-Identifier: Apache-2.0
"""Decide which files run, with which commands, and why others do not.

Runs in a short-lived child of the supervisor and in the command line.
Imports `configuration` and the rooms below it; the standard library only.
"""
