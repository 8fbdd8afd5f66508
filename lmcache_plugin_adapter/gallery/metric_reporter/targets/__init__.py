# SPDX-License-Identifier: Apache-2.0
"""Where the metric reporter sends samples: Pushgateway, remote write, OTLP.

Runs in the metric reporter's process, in one thread for each target. It imports
`gallery.http_client`, the library of each format, and the samples of `exposition`.
"""
