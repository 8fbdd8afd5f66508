# SPDX-License-Identifier: Apache-2.0
"""What the rooms agree on: identity, launch spec, states, variables, the wire, runtime files.

Runs in every process of ours.
Imports `linux` and the standard library.
"""
