# SPDX-License-Identifier: Apache-2.0
"""Watchers of a plugin's run: its duration, its readiness and its signs of life.

Runs in the supervisor. `choice` imports the other modules only with their settings.
"""
