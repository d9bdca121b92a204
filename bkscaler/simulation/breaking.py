"""
Breaking the product on purpose, in one place, for a while: another line of a function, or another value.

A function is broken in its source text, which is compiled anew where it came from; so a way to break it is
two short strings, and one that no longer fits the source is an error, not a mutant that does nothing.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any


class NothingToBreak(Exception):
    """The text that was to be replaced is not in the source, or not once."""


@dataclass(frozen=True, kw_only=True)
class Break:
    """
    One way to break the product.

    :param where: ``module:name`` or ``module:Class.name``, below ``bkscaler``.
    :param old: text in the source of that function; None: it is a value.
    :param new: what stands there instead; for a value, the value.
    """

    where: str
    old: str | None = None
    new: Any


Ways = dict[str, tuple[Break, ...]]
"""By name, what is broken at the same time."""


def value(where: str, new: Any) -> Break:
    """Break a constant of a module or a class; see :class:`Break`."""
    return Break(where=where, new=new)


def line(where: str, old: str, new: str) -> Break:
    """Break a function; see :class:`Break`."""
    return Break(where=where, old=old, new=new)


@contextmanager
def broken(way: Break) -> Iterator[None]:
    """
    Break the product, for a while.

    :raises NothingToBreak: when it does not look as this way expects.
    """
    owner, name = _find(way.where)
    good = vars(owner)[name]
    setattr(owner, name, way.new if way.old is None else _rewritten(good, way))
    try:
        yield
    finally:
        setattr(owner, name, good)


def _find(where: str) -> tuple[Any, str]:
    """Give who has the attribute, and its name."""
    path, _, names = where.partition(":")
    owner: Any = import_module(f"bkscaler.{path}")
    *owners, name = names.split(".")
    for each in owners:
        owner = getattr(owner, each)
    if name not in vars(owner):
        raise NothingToBreak(f"there is no {where}")
    return owner, name


def _rewritten(good: Any, way: Break) -> Any:
    """Compile a function with other text in it."""
    assert way.old is not None
    function: Any = good.fget if isinstance(good, property) else getattr(good, "__func__", good)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(way.old) != 1:
        raise NothingToBreak(f"{way.where} has {way.old!r} {source.count(way.old)} times")
    head = "from __future__ import annotations\n"
    names: dict[str, Any] = {}
    code = compile(head + source.replace(way.old, way.new), f"<broken {way.where}>", "exec")
    exec(code, function.__globals__, names)  # the product's own source
    return next(iter(value for name, value in names.items() if name != "annotations"))
