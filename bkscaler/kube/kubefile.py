"""
Kubeconfig files as they are written: read, merged as kubectl merges them, and looked into part by part.

A :class:`Part` knows the file and the field it came from, so that every problem names both. No problem
quotes a value of a field that may hold a secret, and a file that is no YAML is never quoted, only its line
is told. Imported by ``kube.kubeconfig``.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bkscaler.errors import ConfigurationError
from bkscaler.kube import fields

MAX_PROBLEM_CHARS = 1000
"""The most of a problem that is told; long enough for two paths."""
_UNUSABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""White space is left out, as certificates have line ends."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """
    One mapping of one file.

    :param file: path of the file.
    :param where: the field, for example ``users[ci].user``.
    :param values: what it holds.
    """

    file: str
    where: str
    values: Mapping[str, Any]

    def wrong(self, key: str, problem: str) -> ConfigurationError:
        """Make the error that names file and field; ``key`` may be ``""`` for the part itself."""
        return ConfigurationError(_line(self.file, f"{self.where}.{key}" if key else self.where, problem))

    def text(self, key: str, *, needed: bool = False, secret: bool = False) -> str:
        """
        Read a string; a number where a string belongs is a frequent slip.

        :returns: ``""`` when there is none.
        :raises ConfigurationError: when it is no string, holds what no path, name or header can hold, or is
            missing and needed.
        """
        value = self.values.get(key)
        if needed and value in (None, ""):
            raise self.wrong(key, "is missing")
        if value is not None and not isinstance(value, str):
            raise self.wrong(key, f"{'the value' if secret else repr(value)} is not text")
        if value and _UNUSABLE.search(value):
            raise self.wrong(key, "holds a control character, or half a character")
        return value or ""

    def flag(self, key: str) -> bool:
        """
        Read ``true`` or ``false``; missing is false.

        :raises ConfigurationError: when it is something else.
        """
        value = self.values.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(key, f"{value!r} is neither true nor false")
        return bool(value)

    def data(self, key: str) -> bytes:
        """
        Read base64.

        :returns: ``b""`` when there is none.
        :raises ConfigurationError: when it is no base64; it is not quoted.
        """
        text = self.text(key, secret=True)
        try:
            return base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise self.wrong(key, "is not base64") from error

    def content(self, key: str, file_key: str) -> bytes:
        """
        Read what stands in a field as base64 or, failing that, in the file that another field names.

        :returns: ``b""`` when there is neither.
        :raises ConfigurationError: when it cannot be read.
        """
        data = self.data(key)
        path = "" if data else self.path(file_key)
        if not path:
            return data
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise self.wrong(file_key, f"{path}: cannot be read: {error.strerror}") from error

    def path(self, key: str) -> str:
        """Read a path, relative to this file's directory; ``""`` when there is none."""
        name = self.text(key)
        return os.path.join(os.path.dirname(os.path.abspath(self.file)), name) if name else ""

    def part(self, key: str) -> Part:
        """
        Look into a mapping; a missing one is empty.

        :raises ConfigurationError: when it is something else.
        """
        value = self.values.get(key)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(key, "is not a mapping")
        return Part(file=self.file, where=f"{self.where}.{key}", values=value or {})

    def entries(self, key: str) -> list[Part]:
        """
        Look into a list of mappings; a missing one is empty.

        :raises ConfigurationError: when it is something else.
        """
        value = self.values.get(key)
        if value is not None and not isinstance(value, list):
            raise self.wrong(key, "is not a list")
        found = []
        for number, each in enumerate(value or []):
            if not isinstance(each, dict):
                raise self.wrong(f"{key}[{number}]", "is not a mapping")
            found.append(Part(file=self.file, where=f"{self.where}.{key}[{number}]", values=each))
        return found

    def texts(self, key: str) -> list[str]:
        """
        Read a list of strings, which may be secret; a missing one is empty.

        :raises ConfigurationError: when it is something else.
        """
        value = self.values.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(v, str) for v in value)):
            raise self.wrong(key, "is not a list of texts")
        for number, each in enumerate(value or []):
            if _UNUSABLE.search(each):
                raise self.wrong(f"{key}[{number}]", "holds a control character, or half a character")
        return list(value or [])


class KubeFiles:
    """
    One kubeconfig, or several that are merged: of two entries of one name the first file's is taken whole,
    and so is the first ``current-context``.

    :param paths: files joined by colons. Of several, those that are missing are left out, as long as there
        is one.
    :raises ConfigurationError: when one cannot be used; the problem names it.
    """

    def __init__(self, paths: str) -> None:
        names = [name for name in paths.split(os.pathsep) if name]
        there = [name for name in names if os.path.exists(name)] or names
        self.paths = paths
        self._files = [(name, _parse(name, may_be_empty=len(there) > 1)) for name in there]

    def current_context(self) -> str:
        """
        Give the name of the context to use when none is asked for.

        :raises ConfigurationError: when none is named.
        """
        for file, content in self._files:
            name = content.get("current-context")
            if name not in (None, "") and not isinstance(name, str):
                raise ConfigurationError(_line(file, "current-context", f"{name!r} is not text"))
            if name:
                return str(name)
        raise ConfigurationError(
            _line(self.paths, "current-context", f"names no context; choose one of {self._names('contexts')}")
        )

    def find(self, section: str, key: str, name: str, named_by: str) -> Part:
        """
        Find an entry by name.

        :param section: ``contexts``, ``clusters`` or ``users``.
        :param key: what it holds, ``context``, ``cluster`` or ``user``.
        :param name: which one.
        :param named_by: the field, or the option, that names it.
        :raises ConfigurationError: when there is none, or two of one name in a file.
        """
        for file, content in self._files:
            entries = content.get(section) or []
            if not isinstance(entries, list):
                raise ConfigurationError(_line(file, section, "is not a list"))
            found = [each for each in entries if isinstance(each, dict) and each.get("name") == name]
            if len(found) > 1:
                raise ConfigurationError(_line(file, section, f"has {name!r} twice"))
            if found:
                return Part(file=file, where=f"{section}[{name}]", values=found[0]).part(key)
        self._refuse_odd(section)
        raise ConfigurationError(
            _line(self.paths, named_by, f"{name!r} is not in {section}, which has {self._names(section)}")
        )

    def _refuse_odd(self, section: str) -> None:
        """Name an entry that nothing can be found by: it may be the one that is looked for."""
        for file, content in self._files:
            for number, each in enumerate(content.get(section) or []):
                where = f"{section}[{number}]"
                if not isinstance(each, dict):
                    raise ConfigurationError(_line(file, where, "is not a mapping"))
                if not Part(file=file, where=where, values=each).text("name"):
                    raise ConfigurationError(_line(file, f"{where}.name", "is missing"))

    def _names(self, section: str) -> str:
        """List what there is, for who has named something else."""
        names: dict[str, None] = {}
        for _, content in self._files:
            entries = content.get(section)
            for each in entries if isinstance(entries, list) else []:
                if isinstance(each, dict) and "name" in each:
                    names[str(each["name"])] = None
        return ", ".join(names) or f"(there are no {section})"


def _line(files: str, field: str, problem: str) -> str:
    """Say where what is wrong, in one line, whatever is quoted in it."""
    return fields.one_line(f"{files}: {field}: {problem}", MAX_PROBLEM_CHARS)


def _parse(path: str, *, may_be_empty: bool) -> dict[str, Any]:
    """Read YAML; its own messages may quote the file, tokens too, so only the place is told."""
    import yaml  # noqa: PLC0415  # 1 MiB that a pod, which has a ServiceAccount instead, does without

    try:
        with open(path, "rb") as file:
            content = yaml.safe_load(file.read())
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise ConfigurationError(f"{path}: is not YAML{where}") from None
    if content is None and may_be_empty:
        return {}
    if not isinstance(content, dict):
        raise ConfigurationError(f"{path}: is not a kubeconfig: it holds no mapping")
    for key, wanted in (("apiVersion", "v1"), ("kind", "Config")):
        if content.get(key) not in (None, "", wanted):
            raise ConfigurationError(
                _line(path, key, f"{content[key]!r} is not {wanted}, as in a kubeconfig")
            )
    return content
