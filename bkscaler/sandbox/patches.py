"""
Patches: reading a PATCH body by its content type, and applying it to an object. Pure.

Strategic merge and server-side apply are treated as a merge, which is the same thing for the scalar
fields that clients of the sandbox change; lists are replaced, not merged by key.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import yaml

from bkscaler.sandbox.failures import ApiFailure, Undecodable, bad_request, unsupported_media_type
from bkscaler.sandbox.objects import Object, clone

Patch = Callable[[Object], Object]
"""Gives the patched object; leaves its argument as it was."""

_MERGE = ("application/merge-patch+json", "application/strategic-merge-patch+json")
_APPLY = "application/apply-patch+yaml"
_JSON_PATCH = "application/json-patch+json"


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch (RFC 7386) and give the result; the arguments stay as they were."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def _json_error(error: json.JSONDecodeError) -> str:
    """Say a JSON error as Go says the commonest ones."""
    if error.pos >= len(error.doc):
        return "unexpected end of JSON input"
    where = "object key string" if error.msg.startswith("Expecting property name") else "value"
    return f"invalid character '{error.doc[error.pos]}' looking for beginning of {where}"


def decode_json(body: bytes, what: str) -> Any:
    """
    Read a JSON body.

    :param what: the beginning of the error message.
    :raises ApiFailure: 400.
    """
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise bad_request(f"{what}: {_json_error(error)}") from error
    except UnicodeDecodeError as error:
        raise bad_request(f"{what}: invalid UTF-8") from error


def _merge_of(value: Any) -> Patch:
    if not isinstance(value, dict):
        word = {list: "array", str: "string", bool: "bool"}.get(type(value), "number")
        what = f"cannot unmarshal {word} into Go value of type map[string]interface {{}}"
        raise bad_request(f"error decoding patch: json: {what}")
    return lambda target: merge_patch(target, value)


def _pointer(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _rejected() -> ApiFailure:
    message = "the server rejected our request due to an error in our request"
    return ApiFailure(422, "Invalid", message, details={})


def _walk(target: Any, steps: list[str]) -> Any:
    for step in steps:
        target = target[int(step)] if isinstance(target, list) else target[step]
    return target


def _operate(target: Object, operation: Object) -> None:
    """Apply one operation of a JSON patch in place."""
    steps = _pointer(operation["path"])
    parent, last = _walk(target, steps[:-1]), steps[-1]
    match operation["op"]:
        case "test":
            if _walk(parent, [last]) != operation["value"]:
                raise _rejected()
        case "remove":
            del parent[int(last) if isinstance(parent, list) else last]
        case "add" if isinstance(parent, list):
            parent.insert(len(parent) if last == "-" else int(last), operation["value"])
        case "add" | "replace":
            parent[int(last) if isinstance(parent, list) else last] = operation["value"]
        case _:
            raise _rejected()


def _json_patch_of(operations: Any) -> Patch:
    def apply(target: Object) -> Object:
        result = clone(target)
        try:
            for operation in operations:
                _operate(result, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _rejected() from error
        return result

    return apply


def read_patch(content_type: str, body: bytes) -> Patch:
    """
    Read the body of a PATCH.

    :param content_type: as the client sent it, with or without parameters.
    :raises ApiFailure: 415 for a type that no server knows, 400 for a body that cannot be read.
    """
    media_type = content_type.split(";", maxsplit=1)[0].strip().lower()
    if media_type in _MERGE:
        return _merge_of(decode_json(body, "error decoding patch"))
    if media_type == _JSON_PATCH:
        return _json_patch_of(decode_json(body, "error decoding patch"))
    if media_type == _APPLY:
        try:
            return _merge_of(yaml.safe_load(body))
        except yaml.YAMLError as error:
            raise bad_request("error decoding YAML") from error
    raise unsupported_media_type()


def undecodable_patch(result: Object, why: Undecodable) -> ApiFailure:
    """Give the 422 for a patch whose result has a value of the wrong type or form."""
    shown = json.dumps(json.dumps(result, separators=(",", ":")))
    message = f"Invalid value: {shown}: {why}"
    cause = {"reason": "FieldValueInvalid", "message": message, "field": "patch"}
    return ApiFailure(422, "Invalid", f' "" is invalid: patch: {message}', details={"causes": [cause]})
