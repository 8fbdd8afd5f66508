# SPDX-License-Identifier: Apache-2.0
"""The supervisor: starts plugins, logs their output, restarts and stops them.

Runs in a process of its own outside the engine's tree, started through `bootstrap`.
Imports `messages`, `contract` and `linux`, and in short-lived children `planner` and
`configuration`; nothing imports it.
"""
