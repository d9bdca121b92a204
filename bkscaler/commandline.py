"""
What is wrong with a command line, in words that name the option that a user has typed. Pure.

Imported by :mod:`bkscaler.config`.
"""

from __future__ import annotations

import getopt

from twisted.python import usage


class StrayWord(usage.UsageError):
    """A word that is neither an option nor an option's value; ``args`` are its place from the end, itself."""


def blame(error: usage.UsageError, words: list[str], known: tuple[str, list[str]]) -> tuple[str, slice]:
    """
    Say what a parsing error means to the user, and which of the words caused it.

    :param error: what the parser raised.
    :param words: the command line; not empty.
    :param known: short and long options, as getopt wants them.
    :returns: the problem, which names the option, and the place of the words to leave out.
    """
    if isinstance(error, StrayWord):
        from_end, word = error.args
        place = len(words) - from_end
        return f"{word!r} is not an option and belongs to none", slice(place, place + 1)
    if "requires argument" in str(error):
        return f"{words[-1]}: needs a value", slice(len(words) - 1, None)
    place = next(n for n in range(len(words)) if _complaint(words[: n + 1], known) == str(error))
    value_follows = "=" not in words[place] and not "-".startswith("".join(words[place + 1 : place + 2])[:1])
    if "not recognized" in str(error):
        return f"{words[place]}: there is no such option", slice(place, place + 1 + value_follows)
    if "unique prefix" in str(error):
        return f"{words[place]}: may be one of several options", slice(place, place + 1 + value_follows)
    return f"{words[place]}: {error}", slice(place, place + 1)


def _complaint(words: list[str], known: tuple[str, list[str]]) -> str:
    """Give getopt's words on the beginning of a command line, ``""`` for none."""
    try:
        getopt.getopt(words, *known)
    except getopt.GetoptError as error:
        return str(error)
    return ""
