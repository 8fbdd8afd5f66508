# SPDX-License-Identifier: Apache-2.0
"""Check whether an engine works: its process, its answers and its progress.

Runs in the processes of the heartbeat and the alert reporter. Imports the kit, `linux` and
`gallery.http_client`; knows no plugin of the gallery.
"""
