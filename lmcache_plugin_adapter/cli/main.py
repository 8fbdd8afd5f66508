"""The command ``lmcache-plugins``: options and help; what a command does is in its own module."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.contract.version import __version__

from .new_choices import Language, RoleWord

if TYPE_CHECKING:
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

app = typer.Typer(
    name="lmcache-plugins",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# typer reads these annotations when the commands run, on Python 3.10 too: hence Optional.
ConfigOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        envvar="LMCACHE_CONFIG_FILE",
        help="LMCache's configuration, lmcache.yaml.",
    ),
]
TensorParallel = Annotated[
    int, typer.Option("--tp", min=1, help="Tensor parallel size, as given to vLLM.")
]
PipelineParallel = Annotated[
    int, typer.Option("--pp", min=1, help="Pipeline parallel size, as given to vLLM.")
]

ServerOption = Annotated[
    bool,
    typer.Option(
        "--server",
        help="For LMCache's multiprocess server; FILE is then what --server-module is given.",
    ),
]


def _complete_plugin(incomplete: str) -> list[str]:
    from .cli_fleet import complete_plugin

    return complete_plugin(incomplete)


PluginNames = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        metavar="[NAME]...",
        help="Plugins, as status shows them; also a file's name or path.",
        autocompletion=_complete_plugin,
        show_default=False,
    ),
]
EngineOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--engine", metavar="PID", help="Only of this engine process."),
]
RoleOption = Annotated[
    Optional[Role],  # noqa: UP045
    typer.Option("--role", case_sensitive=False, help="Only of engine processes of this role."),
]
RankOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--rank", metavar="N", help="Only of workers of this rank."),
]
ReplicaOption = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option("--dp", metavar="N", help="Only of this data-parallel replica."),
]
AllOption = Annotated[
    bool, typer.Option("--all", help="All plugins, or all that a name means, are meant.")
]
WaitOption = Annotated[bool, typer.Option("--wait", help="Return when it is done.")]
TimeoutOption = Annotated[
    Optional[float],  # noqa: UP045
    typer.Option("--timeout", metavar="SECONDS", min=0, help="With --wait: not longer than this."),
]


def _selector(
    engine: Optional[int],  # noqa: UP045
    role: Optional[Role],  # noqa: UP045
    rank: Optional[int],  # noqa: UP045
    dp: Optional[int],  # noqa: UP045
) -> Selector:
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    return Selector(engine, role, rank, dp)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"lmcache-plugins {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Run LMCache runtime plugins: programs that live and die with a vLLM engine."""


@app.command()
def run(
    config: ConfigOption = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    role: Annotated[
        Optional[Role],  # noqa: UP045
        typer.Option(case_sensitive=False, help="Stand in for this one process only."),
    ] = None,
    worker_id: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, help="With --role worker: its rank, 0 if not given."),
    ] = None,
    worker_count: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="With --role: workers of the engine, TP x PP if not given."),
    ] = None,
    seconds: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--for", metavar="SECONDS", min=0, help="Stop after this time."),
    ] = None,
    server: ServerOption = False,
) -> None:
    """Run the plugins a configuration names, without vLLM or a GPU, until Ctrl-C.

    Stand-in engines take vLLM's place, one process each: the scheduler and
    TP x PP workers; with --server, LMCache's multiprocess server. What the
    plugins print goes to stderr, as in an engine.
    Ctrl-C stops everything; a second one does not wait for the grace period.
    """
    from . import run as cli_run

    request = cli_run.Request(config, tp * pp, role, worker_id, worker_count, seconds, server)
    sys.exit(cli_run.run(request))


@app.command()
def check(
    config: ConfigOption = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    dp: Annotated[int, typer.Option("--dp", min=1, help="Data parallel size.")] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Warnings count as errors for the exit status.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
    server: ServerOption = False,
) -> None:
    """Say what would run where and how, and what would not and why.

    Exit status: 0 all is well, 1 a plugin that should run cannot (with
    --strict also: a warning), 2 the configuration cannot be read.
    """
    from lmcache_plugin_adapter.cli.check import command as cli_check

    request = cli_check.Request(config, tp * pp, dp, strict, as_json, server)
    sys.exit(cli_check.check(request))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it does, such as queue_watch.")],
    role: Annotated[
        RoleWord, typer.Option(case_sensitive=False, help="Where it runs.", show_default=False)
    ],
    language: Annotated[
        Language, typer.Option("--lang", case_sensitive=False, help="What it is written in.")
    ] = Language.PYTHON,
    directory: Annotated[
        str, typer.Option("--directory", "-d", metavar="DIR", help="Where it is written.")
    ] = ".",
    worker_id: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, metavar="N", help="With --role worker: on this one only."),
    ] = None,
) -> None:
    """Write a working plugin and its test, to be made into what you need.

    Nothing is overwritten. Also writes a configuration to try it with, where
    there is none. Exit status: 0 written, 2 not.
    """
    from . import new as cli_new

    sys.exit(cli_new.new(cli_new.Request(name, role, language, directory, worker_id)))


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of lines.")
    ] = False,
    server: Annotated[
        bool, typer.Option("--server", help="Look at LMCache's multiprocess server, not at vLLM.")
    ] = False,
) -> None:
    """Say whether vLLM in this environment would run plugins with this package, and why not.

    Run it where the engine runs: in its container, with its interpreter and
    environment. Exit status: 0 it would, 1 it would not.
    """
    from . import doctor as cli_doctor

    sys.exit(cli_doctor.doctor(as_json, server))


@app.command()
def status(
    names: PluginNames = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Look again every 2 s, until Ctrl-C.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of tables.")
    ] = False,
    probe: Annotated[
        bool, typer.Option("--check", help="For probes: say only what is not well; exit 1 then.")
    ] = False,
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Show the plugins of all engines of this host, or only those named.

    Those of this user; for root, of all users. Exit status: 0 all could be
    asked, 1 a supervisor could not be, 2 an unknown plugin. With --check: 0
    every plugin named (or every plugin there is) runs, or has done its work; 1 not so.
    """
    from lmcache_plugin_adapter.cli.status import command as cli_status

    chosen = _selector(engine, role, rank, dp)
    request = cli_status.Request(tuple(names or ()), chosen, watch, as_json, probe)
    sys.exit(cli_status.status(request))


@app.command()
def logs(
    names: PluginNames = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--lines", "-n", metavar="N", min=0, help="So many of the last lines."),
    ] = None,
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Print the last lines of plugins, from their supervisors' memory.

    What the rate limit held back from the engine's log is there, too.
    """
    from . import logs as cli_logs

    chosen = _selector(engine, role, rank, dp)
    request = cli_logs.Request(tuple(names or ()), chosen, follow, lines)
    sys.exit(cli_logs.logs(request))


@app.command()
def start(
    names: PluginNames = None,
    everything: AllOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Start plugins that were stopped, have ended or could not run."""
    from . import manage as cli_manage

    chosen = _selector(engine, role, rank, dp)
    names_ = tuple(names or ())
    request = cli_manage.Request("start", names_, everything, chosen, wait, timeout)
    sys.exit(cli_manage.manage(request))


@app.command()
def stop(
    names: PluginNames = None,
    everything: AllOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Stop plugins: SIGTERM, their grace period, SIGKILL. The engine serves on.

    They stay stopped until they are started, or their engine is.
    """
    from . import manage as cli_manage

    chosen = _selector(engine, role, rank, dp)
    names_ = tuple(names or ())
    request = cli_manage.Request("stop", names_, everything, chosen, wait, timeout)
    sys.exit(cli_manage.manage(request))


@app.command()
def restart(
    names: PluginNames = None,
    everything: AllOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = None,
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Stop plugins in order and start them again."""
    from . import manage as cli_manage

    chosen = _selector(engine, role, rank, dp)
    names_ = tuple(names or ())
    request = cli_manage.Request("restart", names_, everything, chosen, wait, timeout)
    sys.exit(cli_manage.manage(request))


@app.command()
def reload(
    engine: EngineOption = None,
    role: RoleOption = None,
    rank: RankOption = None,
    dp: ReplicaOption = None,
) -> None:
    """Look for new, changed and removed plugin files; touch nothing else.

    What could not run is tried again. The engine serves on.
    """
    from . import manage as cli_manage

    sys.exit(cli_manage.reload(_selector(engine, role, rank, dp)))


def main() -> None:
    """Entry point of the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names of files may hold what the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    app(prog_name="lmcache-plugins")
