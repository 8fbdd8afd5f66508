# SPDX-License-Identifier: Apache-2.0
"""The engine's side, the same for every host: start a supervisor, talk to it, replace it.

Runs inside the engine process, so it is tiny. It waits only in a stop that is to wait, and raises
only `LaunchError`, for a host with a fallback.
Imports the standard library, `contract` and `linux`; knows no host.
"""
