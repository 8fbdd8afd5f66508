# SPDX-License-Identifier: Apache-2.0
"""The output of plugins: from their pipes, through the rate limit, to the engine's log.

Runs in the supervisor. Imports `messages`, `contract` and `linux`, nothing of the supervisor.
"""
