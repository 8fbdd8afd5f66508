# SPDX-License-Identifier: Apache-2.0
"""The processes of plugins: their start, the wait for them, and their end.

Runs in the supervisor. Imports `messages`, `contract` and `linux`, nothing of the supervisor.
"""
