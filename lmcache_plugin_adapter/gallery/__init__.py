# SPDX-License-Identifier: Apache-2.0
"""The gallery: ready plugins for heartbeats, logs, metrics and alerts.

Runs in a process of its own for each plugin, started by the supervisor. Imports the kit, the rooms
below it and the libraries of the extra ``gallery``; no other room imports the gallery.
"""
