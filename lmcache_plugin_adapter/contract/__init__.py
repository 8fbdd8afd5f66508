# SPDX-License-Identifier: Apache-2.0
"""Shared by all rooms: identity, launch spec, states, variables, the wire, runtime files.

Runs in every process of ours.
Imports `linux` and the standard library.
"""
