# SPDX-License-Identifier: Apache-2.0
"""LMCache's multiprocess server as a host: its module, and a launcher of one file.

Runs in LMCache's server, or beside it as a plugin of LMCache's own launcher.
Imports the engine's side and LMCache's modules that the server has loaded.
"""
