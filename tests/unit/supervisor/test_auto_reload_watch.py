# SPDX-License-Identifier: Apache-2.0
"""What the log says when the kernel refuses to watch a location (``auto_reload``)."""

from __future__ import annotations

import errno
import os

from lmcache_plugin_adapter.supervisor.planning import auto_reload


def test_a_refused_watch_is_one_line(mocker) -> None:
    """The number of watches of a user is limited: the line names the location, once."""
    refusal = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    mocker.patch.object(auto_reload, "watch_changes", side_effect=refusal)
    services = mocker.Mock()
    one = auto_reload.AutoReload(services, mocker.Mock())
    one.watch(["/plugins"])
    one.watch(["/plugins"])
    one.close()
    (call,) = services.events.log.call_args_list
    assert call.args[1] == (
        "Cannot watch all locations for changes (auto_reload): '/plugins': "
        "No space left on device; run 'lmcache-plugins reload' after changes"
    )
