# SPDX-License-Identifier: Apache-2.0
"""The command ``lmcache-plugins``: options and help texts; each command has its own module."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lmcache_plugin_adapter.cli.logs.formats import Level, LogFormat, RunFormat
from lmcache_plugin_adapter.contract.identity import Role
from lmcache_plugin_adapter.contract.version import __version__

from .command_classes import Command, Group, SupervisorCommand
from .console import exit_with, fail, open_standard_streams
from .inputs import UsageError
from .new_templates import Language, RoleWord
from .options import (
    AllUsers,
    AsJson,
    Config,
    Engine,
    EngineRole,
    Everything,
    Files,
    Names,
    OtherContainers,
    PipelineParallel,
    Replica,
    Server,
    TensorParallel,
    Timeout,
    Wait,
    WorkerId,
    read_seconds,
)

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="lmcache-plugins",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"lmcache-plugins {__version__}")
        raise typer.Exit


def _print_schema(requested: bool) -> None:
    if requested:
        from lmcache_plugin_adapter.configuration.json_schema import SCHEMA_FILE

        typer.echo(SCHEMA_FILE.read_text(encoding="utf-8"), nl=False)
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


@app.command(cls=SupervisorCommand)
def run(
    files: Files = None,
    config: Config = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    role: Annotated[
        Role | None,
        typer.Option(case_sensitive=False, help="Run a stand-in for this one process only."),
    ] = None,
    worker_id: Annotated[
        int | None, typer.Option(min=0, help="With --role worker: its rank. Default: 0.")
    ] = None,
    worker_count: Annotated[
        int | None,
        typer.Option(min=1, help="With --role: workers of the engine. Default: TP x PP."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            metavar="DURATION",
            parser=read_seconds,
            help="Stop after this time: seconds, or such as 30s or 5m.",
        ),
    ] = None,
    server: Server = False,
    form: Annotated[
        RunFormat | None,
        typer.Option(
            "--format",
            case_sensitive=False,
            help="Form of log lines. Default: short on a terminal, else lmcache.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run plugins without vLLM or a GPU, until Ctrl-C: those of a configuration, or single files.

    Stand-in engines take vLLM's place, one process each: the scheduler and
    TP x PP workers; with --server, LMCache's multiprocess server. The output
    of the plugins goes to stderr, as in an engine.
    Ctrl-C stops everything; a second Ctrl-C skips the grace period.
    Exit status: 0 stopped, also if plugins failed, 1 a stand-in engine failed,
    2 the configuration cannot be used.
    """
    from lmcache_plugin_adapter.cli.run.stand_ins import StandIns

    from .run import command

    stand_ins = StandIns(tp * pp, role, worker_id, worker_count, server)
    sys.exit(command.run(config, stand_ins, seconds, files or (), form))


@app.command(cls=Command)
def check(
    files: Files = None,
    config: Config = None,
    tp: TensorParallel = 1,
    pp: PipelineParallel = 1,
    dp: Annotated[
        int, typer.Option("--dp", min=1, help="Data parallel size, as given to vLLM.")
    ] = 1,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count warnings as errors for the exit status.")
    ] = False,
    as_json: AsJson = False,
    server: Server = False,
    lmcache_locations: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime-plugin-locations",
            metavar="PATH",
            help="With --server: a location that LMCache's server is given; repeat the option.",
        ),
    ] = None,
    _schema: Annotated[
        bool,
        typer.Option(
            "--schema",
            callback=_print_schema,
            is_eager=True,
            help="Print the JSON Schema of lmcache.yaml's settings and exit.",
        ),
    ] = False,
) -> None:
    """Show which plugins would run, where and with which command, and why others would not.

    Exit status: 0 no error, 1 a plugin that should run cannot (with --strict
    also: a warning), 2 the configuration cannot be read.
    """
    from lmcache_plugin_adapter.cli.check.report import EngineSize

    from .check import command

    engine = EngineSize(tp * pp, dp, server)
    given = files or (), lmcache_locations or ()
    sys.exit(command.check(config, engine, *given, strict=strict, as_json=as_json))


@app.command(cls=Command)
def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The plugin's task, such as queue_watch.")
    ],
    role: Annotated[
        RoleWord,
        typer.Option(case_sensitive=False, help="Where the plugin runs.", show_default=False),
    ],
    language: Annotated[
        Language, typer.Option("--lang", case_sensitive=False, help="The plugin's language.")
    ] = Language.PYTHON,
    directory: Annotated[
        str, typer.Option("--directory", "-d", metavar="DIR", help="Where to write the files.")
    ] = ".",
    worker_id: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="With --role worker: run on this worker only."),
    ] = None,
) -> None:
    """Create a new plugin and its test from a template.

    Existing files are not overwritten. A configuration to try the plugin with
    is created, too, if there is none. Exit status: 0 created, 2 not created.
    """
    from . import new as command

    sys.exit(command.new(command.NewPlugin(name, role, language, directory, worker_id)))


@app.command(cls=Command)
def doctor(
    as_json: AsJson = False,
    server: Annotated[
        bool, typer.Option("--server", help="Inspect LMCache's multiprocess server, not vLLM.")
    ] = False,
    kv_transfer_config: Annotated[
        str | None,
        typer.Option(
            "--kv-transfer-config",
            metavar="JSON",
            help="The value of vLLM's option, which names the connector.",
        ),
    ] = None,
) -> None:
    """Report whether vLLM in this environment would run plugins with this package, and why not.

    Run it where the engine runs: in its container, with its interpreter and
    environment. Exit status: 0 it would, 1 it would not.
    """
    from .doctor import doctor

    sys.exit(doctor(as_json, server, kv_transfer_config))


@app.command(cls=SupervisorCommand)
def status(
    names: Names = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Repeat every 2 s, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
    wide: Annotated[
        bool,
        typer.Option(
            "--wide", help="Show every column and row, also on a small terminal, and the engines."
        ),
    ] = False,
    probe: Annotated[
        bool,
        typer.Option("--check", help="For probes: print only unhealthy plugins and exit with 1."),
    ] = False,
    engine: Engine = None,
    role: EngineRole = None,
    worker_id: WorkerId = None,
    dp: Replica = None,
) -> None:
    """Show the plugins of all engines of this host, or the named plugins only.

    Shows engines of this user; for root, of all users. Exit status: 0 all
    supervisors answered, 1 a supervisor did not answer or the options select
    none, 2 an unknown plugin.
    With --check: 0 every named plugin (without names, every plugin) runs or
    has exited with code 0, 1 otherwise.
    """
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    from .status import command

    selection = tuple(names or ()), Selector(engine, role, worker_id, dp)
    if probe:
        sys.exit(command.probe(*selection))
    sys.exit(command.status(*selection, watch=watch, as_json=as_json, wide=wide))


@app.command(cls=SupervisorCommand)
def logs(
    names: Names = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue with new lines, until Ctrl-C.")
    ] = False,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", metavar="N", min=0, help="Number of last lines.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="TIME",
            help="Only lines from this time on: 10m (ago), 14:30 or 2026-11-22 14:30:00.",
        ),
    ] = None,
    level: Annotated[
        Level | None,
        typer.Option(
            "--level", case_sensitive=False, help="Only lines of this level and more urgent ones."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document a line.")
    ] = False,
    form: Annotated[
        LogFormat | None,
        typer.Option(
            "--format",
            case_sensitive=False,
            help="Form of lines. Default: short with --follow on a terminal, else timed.",
            show_default=False,
        ),
    ] = None,
    engine: Engine = None,
    role: EngineRole = None,
    worker_id: WorkerId = None,
    dp: Replica = None,
) -> None:
    """Print the last lines of plugins, from their supervisors' memory.

    Includes the lines that the rate limit suppressed in the engine's log.
    """
    from lmcache_plugin_adapter.cli.logs.printer import make_filter
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    from .logs import command

    selector = Selector(engine, role, worker_id, dp)
    try:
        wanted = make_filter(since, level and level.value, lines)
    except UsageError as error:
        sys.exit(fail(error))
    status = command.logs(
        tuple(names or ()), selector, wanted, follow=follow, form=form, as_json=as_json
    )
    sys.exit(status)


def _manager(operation: str) -> Callable[..., None]:
    """Return the command that starts, stops or restarts plugins."""

    def command(
        names: Names = None,
        everything: Everything = False,
        other_containers: OtherContainers = False,
        wait: Wait = False,
        timeout: Timeout = None,
        engine: Engine = None,
        role: EngineRole = None,
        worker_id: WorkerId = None,
        dp: Replica = None,
        all_users: AllUsers = False,
    ) -> None:
        from lmcache_plugin_adapter.cli.supervisors.survey import Selector

        from .manage import manage

        status = manage(
            operation,
            tuple(names or ()),
            Selector(engine, role, worker_id, dp),
            everything=everything,
            other_containers=other_containers,
            wait=wait,
            timeout=timeout,
            all_users=all_users,
        )
        sys.exit(status)

    return command


for _operation, _help in {
    "start": "Start plugins that are stopped, have exited or could not run.",
    "stop": """Stop plugins: SIGTERM, their grace period, SIGKILL. The engine continues to serve.

    A stopped plugin stays stopped until you start it again or the engine restarts.
    """,
    "restart": "Stop plugins, then start them again.",
}.items():
    app.command(_operation, cls=SupervisorCommand, help=_help)(_manager(_operation))


@app.command(cls=SupervisorCommand)
def reload(
    engine: Engine = None,
    role: EngineRole = None,
    worker_id: WorkerId = None,
    dp: Replica = None,
    all_users: AllUsers = False,
) -> None:
    """Rescan the locations for new, changed and removed plugin files; touch nothing else.

    Plugins that could not run are tried again. The engine continues to serve.
    """
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    from .manage import reload

    sys.exit(reload(Selector(engine, role, worker_id, dp), all_users))


def main() -> None:
    """Run the command line."""
    open_standard_streams()
    exit_with(lambda: app(prog_name="lmcache-plugins"))
