"""Become a supervisor: leave the engine's process tree, then load the rest and run.

Run by path with ``python -I -S``, so that nothing of the engine's site-packages
or environment is loaded. Its arguments are made by :mod:`.engine.supervisor_connection`.
"""

from __future__ import annotations

import os
import sys


def check_version(engine_version: str) -> None:
    """Exit if the engine runs another version of this package than the one installed now.

    The package was replaced while the engine ran. What the two hand each other may differ.
    """
    from lmcache_plugin_adapter.contract.version import VERSION_DIFFERS_CODE, __version__

    if __version__ != engine_version:
        text = (
            "Cannot start a supervisor of runtime plugins: this engine runs "
            f"lmcache-plugin-adapter {engine_version}, but {__version__} is installed now; "
            "restart the engine to use it"
        )
        os.write(2, text.encode() + b"\n")
        sys.exit(VERSION_DIFFERS_CODE)


def leave_engine_tree() -> None:
    """Fork and let the parent end: the kernel gives the child to init or a subreaper.

    vLLM ends an engine by killing all its descendants by parent pid, with no
    warning; a supervisor among them could warn nobody.
    """
    if os.fork():
        os._exit(0)
    os.setsid()


def settle(descriptors: list[int]) -> None:
    """Make standard descriptors sane, and keep ``descriptors`` from the plugins."""
    null = os.open(os.devnull, os.O_RDWR)
    while null < 3:  # the engine runs with some of 0-2 closed: they are filled here
        null = os.dup(null)
    for fd in (0, 1):
        os.dup2(null, fd)
    os.close(null)
    for fd in descriptors:
        if fd >= 0:
            os.set_inheritable(fd, False)
    try:
        # The engine may be pinned to cores; plugins must not sit on those.
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))
    except OSError:
        pass  # refused: they stay where the engine is


def main(argv: list[str]) -> None:
    """Run a supervisor; ``argv`` comes from :func:`.start_supervisor`."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.append(os.path.dirname(package))
    check_version(argv[1])
    leave_engine_tree()
    link, pidfd, spec, engine, start, previous, again = map(int, argv[2:9])
    run_id, label = argv[9:11]
    settle([link, pidfd, spec])
    sys.setswitchinterval(0.0005)  # the writer's thread is not kept waiting by the loop

    try:
        from lmcache_plugin_adapter.contract.run_token import SUPERVISOR_NAME
        from lmcache_plugin_adapter.linux.syscalls import set_process_name
        from lmcache_plugin_adapter.supervisor.handover import Launch
        from lmcache_plugin_adapter.supervisor.supervisor import Supervisor

        set_process_name(SUPERVISOR_NAME)
        launch = Launch(link, pidfd, spec, engine, start, run_id, label, previous, bool(again))
        Supervisor(launch).run()
    except BaseException as error:  # noqa: BLE001 - the engine starts another; this one says why
        text = f"Supervisor of {label} ends by an internal error: {error!r}"
        os.write(2, text.encode("utf-8", "replace") + b"\n")
        os._exit(1)
    os._exit(0)  # a thread may be blocked in a write to a log that nobody reads


if __name__ == "__main__":
    main(sys.argv)
