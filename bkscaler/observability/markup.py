"""HTML and SVG that cannot be injected into: whatever is not :class:`Markup` is escaped. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = frozenset({"meta", "link", "br", "hr", "line", "rect", "circle", "path", "use"})


class Markup(str):
    """Text that is HTML already. Made by :func:`tag` alone, and by :func:`ours` of our own constants."""

    __slots__ = ()


def ours(constant: str) -> Markup:
    """Declare a constant of the program to be HTML. Never for anything that came from outside."""
    return Markup(constant)


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """
    Make an element.

    :param name: of the element.
    :param children: text, which is escaped; markup; lists of both; None is nothing.
    :param attributes: escaped; ``class_`` is ``class``, other underscores become dashes; None, False and
        ``""`` leave an attribute out, True gives it no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    inner = text(children)
    if not inner and name in _VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{inner}</{name}>")


def text(content: object) -> Markup:
    """Write content as markup: what is not markup is escaped."""
    if content is None:
        return Markup("")
    if isinstance(content, Markup):
        return content
    if isinstance(content, Iterable) and not isinstance(content, str):
        return Markup("".join(text(each) for each in content))
    return Markup(escape(str(content), quote=True))


def _attribute(key: str, value: object) -> str:
    if value is None or value is False or value == "":
        return ""
    name = "class" if key == "class_" else key.replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value), quote=True)}"'
