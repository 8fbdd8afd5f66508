# SPDX-License-Identifier: Apache-2.0
"""Frozen value classes like those of ``dataclasses``, at a tenth of the cost.

Importing ``dataclasses`` loads ``inspect``, ``ast`` and ``dis``, and each class
compiles a source text: that was half of the planner's work before it read the
first file. Modules that the planner loads use this one; the tools use ``dataclasses``.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    from typing_extensions import dataclass_transform

    T = TypeVar("T")

    @dataclass_transform(frozen_default=True)
    def frozen(cls: type[T]) -> type[T]:
        """Return ``cls`` as ``dataclass(frozen=True)`` does: its annotations are its fields."""
        return cls

else:

    def frozen(cls):
        """Return ``cls`` as ``dataclass(frozen=True)`` does: its annotations are its fields."""
        cls.__match_args__ = names = tuple(cls.__annotations__)
        cls._defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}
        cls.__init__ = _init
        cls.__setattr__ = cls.__delattr__ = _refuse
        cls.__eq__ = _equal
        cls.__hash__ = _hash
        cls.__repr__ = _repr
        return cls


def replaced(value: T, **changes: Any) -> T:
    """Return a copy of a frozen value with some fields changed."""
    return type(value)(**{**vars(value), **changes})


def _init(self: Any, *args: Any, **kwargs: Any) -> None:
    cls = type(self)
    names = cls.__match_args__
    given = dict(zip(names, args))  # noqa: B905 - the error below names the class
    if len(args) > len(names) or not given.keys().isdisjoint(kwargs):
        raise TypeError(f"{cls.__name__}: too many values for {', '.join(names)}")
    values = {**cls._defaults, **given, **kwargs}
    try:
        # A dict of its own: filled field by field, one of more than 30 takes twice the memory.
        fields = {name: values.pop(name) for name in names}
    except KeyError as missing:
        raise TypeError(f"{cls.__name__}: no value for {missing}") from None
    if values:
        raise TypeError(f"{cls.__name__}: no field {', '.join(map(repr, values))}")
    object.__setattr__(self, "__dict__", fields)


def _refuse(self: Any, name: str, *_value: object) -> None:
    raise AttributeError(f"cannot change {name!r}: a {type(self).__name__} is frozen")


def _equal(self: Any, other: object) -> Any:
    return vars(self) == vars(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(tuple(vars(self).values()))


def _repr(self: Any) -> str:
    fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
    return f"{type(self).__name__}({fields})"
