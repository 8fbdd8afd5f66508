# SPDX-License-Identifier: Apache-2.0
"""Metrics of plugins, as files that other programs read.

Runs in the supervisor (`series`, the writers) and in its planning child (`plan`). The writers are
imported only with the setting `metrics`. Imports `messages`, `contract` and `linux`, and the
supervisor's `output`.
"""
