# SPDX-License-Identifier: Apache-2.0
"""The processes of plugins: their start, the wait for them, and their end.

Runs in the supervisor; `start_check` in the child that becomes a plugin, for which it imports
`planner`. The others import `messages`, `contract` and `linux`.
"""
