"""
The one protobuf message that the sandbox reads: ``kubectl auth can-i`` sends its question in no other form.

A message of Kubernetes begins with four magic bytes; an envelope with the type and the object's own bytes
follows. Answers are JSON, which ``kubectl`` takes. Pure.
"""

from __future__ import annotations

from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.objects import Object

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
"""Content type of such a body."""

_MAGIC = b"k8s\x00"
_VARINT, _BYTES = 0, 2
_ENVELOPE_RAW = 2
_REVIEW_SPEC = 2
_SPEC_RESOURCE, _SPEC_PATH = 1, 2
_RESOURCE = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
_PATH = {1: "path", 2: "verb"}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _fields(data: bytes) -> dict[int, bytes]:
    """Give the length-delimited fields of a message by number; numbers in it are skipped."""
    fields: dict[int, bytes] = {}
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        value, position = _varint(data, position)
        if key & 7 == _BYTES:
            fields[key >> 3] = data[position : position + value]
            position += value
        elif key & 7 != _VARINT:
            raise ValueError("unexpected wire type")
    return fields


def _named(data: bytes, names: dict[int, str]) -> Object:
    fields = _fields(data)
    return {name: fields[number].decode() for number, name in names.items() if number in fields}


def read_review(body: bytes) -> Object:
    """
    Read a SelfSubjectAccessReview.

    :returns: it as JSON would hold it.
    :raises ApiFailure: 400 for a body that is none.
    """
    try:
        if not body.startswith(_MAGIC):
            raise ValueError("no magic bytes")
        envelope = _fields(body[len(_MAGIC) :])
        spec = _fields(_fields(envelope[_ENVELOPE_RAW])[_REVIEW_SPEC])
        result: Object = {}
        if _SPEC_RESOURCE in spec:
            result["resourceAttributes"] = _named(spec[_SPEC_RESOURCE], _RESOURCE)
        if _SPEC_PATH in spec:
            result["nonResourceAttributes"] = _named(spec[_SPEC_PATH], _PATH)
    except (ValueError, KeyError, IndexError) as error:
        raise ApiFailure(400, "BadRequest", f"the body is no access review: {error}") from error
    return {"spec": result}
