# SPDX-License-Identifier: Apache-2.0
"""What watches a run of a plugin: its duration, its readiness and its signs of life.

Runs in the supervisor. `choice` imports the other modules only with their settings.
"""
