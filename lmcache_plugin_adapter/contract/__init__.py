# SPDX-License-Identifier: Apache-2.0
"""Definitions that the rooms share: identity, launch spec, plugin states, variables, the wire.

Runs in every process of ours.
Imports `linux` and the standard library.
"""
