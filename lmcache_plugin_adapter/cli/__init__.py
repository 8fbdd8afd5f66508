# SPDX-License-Identifier: Apache-2.0
"""The command line, `lmcache-plugins`: one module per command.

Runs in a process of its own, started by an operator or a plugin author.
Imports every room below it but the supervisor, whose control socket it uses;
of the hosts only the stand-in, the table of upstream names and the server's configuration.
"""
