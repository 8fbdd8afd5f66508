# SPDX-License-Identifier: Apache-2.0
"""``python -m lmcache_plugin_adapter``: the same as the command ``lmcache-plugins``."""

from lmcache_plugin_adapter.cli.main import main

if __name__ == "__main__":
    main()
