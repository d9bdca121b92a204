"""
The few protobuf messages that the sandbox reads, because ``kubectl`` sends them in no other form: the
question of ``kubectl auth can-i``, and what ``kubectl create namespace`` and ``create configmap`` make.

A message of Kubernetes begins with four magic bytes; an envelope with the type and the object's own bytes
follows. Answers are JSON, which ``kubectl`` takes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bkscaler.sandbox.failures import bad_request, unsupported_media_type
from bkscaler.sandbox.kinds import ACCESS_REVIEWS, CONFIGMAPS, NAMESPACES, Kind
from bkscaler.sandbox.objects import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
"""Content type of such a body."""

_MAGIC = b"k8s\x00"
_VARINT, _BYTES = 0, 2
_ENVELOPE_RAW = 2

_TEXT, _MAP = "text", "map"
_META = {
    1: ("name", _TEXT),
    2: ("generateName", _TEXT),
    3: ("namespace", _TEXT),
    11: ("labels", _MAP),
    12: ("annotations", _MAP),
}
_RESOURCE = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
_REVIEW_SPEC = {
    1: ("resourceAttributes", {number: (name, _TEXT) for number, name in enumerate(_RESOURCE, 1)}),
    2: ("nonResourceAttributes", {1: ("path", _TEXT), 2: ("verb", _TEXT)}),
}
# By field number: the name in JSON, and text, map, or the schema of a message inside.
_SCHEMAS: dict[Kind, dict[int, tuple[str, Any]]] = {
    ACCESS_REVIEWS: {1: ("metadata", _META), 2: ("spec", _REVIEW_SPEC)},
    NAMESPACES: {1: ("metadata", _META)},
    CONFIGMAPS: {1: ("metadata", _META), 2: ("data", _MAP)},
}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Give the length-delimited fields of a message in their order; numbers in it are skipped."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        value, position = _varint(data, position)
        if key & 7 == _BYTES:
            if position + value > len(data):
                raise ValueError("the message is cut short")
            yield key >> 3, data[position : position + value]
            position += value
        elif key & 7 != _VARINT:
            raise ValueError("unexpected wire type")


def _message(data: bytes, schema: dict[int, tuple[str, Any]]) -> Object:
    """Read a message by its schema; fields that the schema does not name are left out."""
    result: Object = {}
    for number, payload in _fields(data):
        name, form = schema.get(number, ("", _TEXT))
        if not name:
            continue
        if form == _TEXT:
            # Go leaves an empty text out of JSON.
            result.update({name: payload.decode()} if payload else {})
        elif form == _MAP:
            entry = dict(_fields(payload))
            result.setdefault(name, {})[entry.get(1, b"").decode()] = entry.get(2, b"").decode()
        else:
            result[name] = _message(payload, form)
    return result


def read_protobuf(kind: Kind, body: bytes) -> Object:
    """
    Read an object.

    :param kind: what the body must hold.
    :returns: it as JSON would hold it, with its metadata.
    :raises ApiFailure: 415 for a kind that the sandbox reads as JSON only, 400 for a body that is broken.
    """
    if kind not in _SCHEMAS:
        raise unsupported_media_type()
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("no magic bytes")
        envelope = dict(_fields(body[len(_MAGIC) :]))
        return {"metadata": {}, **_message(envelope[_ENVELOPE_RAW], _SCHEMAS[kind])}
    except (ValueError, KeyError, IndexError) as error:
        raise bad_request(f"the body is no {kind.kind} in protobuf: {error}") from error
