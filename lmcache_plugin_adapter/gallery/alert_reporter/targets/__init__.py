# SPDX-License-Identifier: Apache-2.0
"""Where the alert reporter sends alerts: Alertmanager and webhooks.

Runs in the alert reporter's process, in one thread for each target. Imports the kit,
`gallery.http_client` and the alerts.
"""
