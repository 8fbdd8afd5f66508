# SPDX-License-Identifier: Apache-2.0
"""The engine's side, the same for every host: start a supervisor, talk to it, replace it.

Runs inside the engine process, so it is tiny, never blocks and never raises into the host.
Imports the standard library, `contract` and `linux`; knows no host.
"""
