# SPDX-License-Identifier: Apache-2.0
"""The HTTP API of a plugin's own engine process: its address, and which process listens there.

Runs in a plugin's process and in authors' tests. Imports the standard library; httpx when used.
"""
