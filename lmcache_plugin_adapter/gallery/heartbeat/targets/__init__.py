# SPDX-License-Identifier: Apache-2.0
"""Where the heartbeat registers its engine: etcd, Consul, a URL.

Runs in the heartbeat's process, in one thread for each target. Imports the kit,
`gallery.http_client` and the heartbeat's settings.
"""
