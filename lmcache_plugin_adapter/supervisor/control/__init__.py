# SPDX-License-Identifier: Apache-2.0
"""The control socket: its server and the operations that clients can request.

Runs in the supervisor. Imports what the supervisor may import.
"""
