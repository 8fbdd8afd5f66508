# SPDX-License-Identifier: Apache-2.0
"""`python -m lmcache_plugin_adapter.server_plugin PID`: beside LMCache's server before 0.5.6."""

import sys

from lmcache_plugin_adapter.hosts.lmcache_server.single_file_launcher import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
