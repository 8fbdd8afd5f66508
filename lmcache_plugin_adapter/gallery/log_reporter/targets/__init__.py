# SPDX-License-Identifier: Apache-2.0
"""Where the log reporter delivers records: syslog, Loki, OTLP.

Runs in the log reporter's process, in one thread for each target. It imports
`gallery.http_client`, the library of each format, and the records of `reading`.
"""
