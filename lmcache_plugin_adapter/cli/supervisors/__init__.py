# SPDX-License-Identifier: Apache-2.0
"""The client of supervisors' control sockets: find supervisors, send requests, measure processes.

Runs in the command line's process.
Imports what the command line may import.
"""
