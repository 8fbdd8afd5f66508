# SPDX-License-Identifier: Apache-2.0
"""The kinds of commands, as classes of typer: what all commands of a kind have in common."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lmcache_plugin_adapter.linux.supported import why_unsupported
from lmcache_plugin_adapter.messages.wording import uncapitalized

from .console import fail
from .inputs import UsageError
from .options import ALIASES

_UsageError: type[Any] = typer.BadParameter.__bases__[0]
"""Every mistake in a command line; typer gives the class no public name."""


_GIVEN = "lmcache_plugin_adapter.arguments"
"""Key of a command's arguments in its context."""


class _FlagsWithoutType:
    """Hide the type of flags in the help: newer versions of typer show ``<bool>``."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters of the command, ``--help`` included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar = ""
        return params


class Command(_FlagsWithoutType, TyperCommand):
    """A command, which accepts shorter names of options, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments after replacing aliases."""
        known = {name for param in self.params for name in param.opts}
        aliases = {
            alias: name for alias, name in ALIASES.items() if name in known and alias not in known
        }
        for i, word in enumerate(args):
            if word == "--":
                break
            alias, equals, value = word.partition("=")
            args[i] = aliases.get(alias, alias) + equals + value
        ctx.meta[_GIVEN] = list(args)
        return super().parse_args(ctx, args)


class SupervisorCommand(Command):
    """A command that runs supervisors or sends requests to them."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, on a system that has supervisors."""
        why = why_unsupported()
        if why is not None:
            sys.exit(fail(UsageError(why)))
        return super().invoke(ctx)


class Group(_FlagsWithoutType, TyperGroup):
    """The command that holds the others. A mistake in a command line is one line, not a box."""

    def make_context(self, info_name: Any, args: list[str], *more: Any, **extra: Any) -> Any:
        """Parse the options before the command."""
        wanted = bool(args)
        try:
            return super().make_context(info_name, args, *more, **extra)
        except _UsageError as error:
            if not wanted:
                raise  # the help
            sys.exit(_fail(error))

    def invoke(self, ctx: Any) -> Any:
        """Parse the rest and run the command."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            sys.exit(_fail(error))


def _value_of(error: Any) -> str:
    """Return what the command line has for the option that an error is about."""
    options = getattr(getattr(error, "param", None), "opts", ())
    given = error.ctx.meta.get(_GIVEN, ()) if error.ctx else ()
    for word, following in pairwise([*given, ""]):
        name, equals, value = word.partition("=")
        if name in options:
            return str(value if equals else following)
    return ""


def _fail(error: Any) -> int:
    text = " ".join(uncapitalized(error.format_message()).split()).rstrip(".")
    value = _value_of(error)
    if value and repr(value) not in text:  # some versions of typer leave it out
        text += f"; found {value!r}"
    text = text.replace("Value error, ", "")
    program = error.ctx.command_path if error.ctx else "lmcache-plugins"
    return fail(UsageError(f"{text} (see '{program} --help')"))
