# SPDX-License-Identifier: Apache-2.0
"""``python -m lmcache_plugin_adapter.gallery.metric_reporter``, for a wrapper script."""

from __future__ import annotations

import sys

from . import main

if __name__ == "__main__":
    sys.exit(main())
