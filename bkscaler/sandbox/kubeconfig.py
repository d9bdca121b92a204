"""The kubeconfig that leads clients to the sandbox: its text, and its file."""

from __future__ import annotations

import base64
import os

import yaml

CONTEXT = "bkscaler-sandbox"
"""Name of the cluster, user and context in the file."""


def kubeconfig_text(*, server: str, ca_pem: bytes, token: str, namespace: str) -> str:
    """
    Write a kubeconfig as YAML.

    :param server: URL of the API.
    :param ca_pem: certificate of its authority.
    :param token: bearer token.
    :param namespace: namespace of the context.
    """
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(ca_pem).decode()}
    context = {"cluster": CONTEXT, "user": CONTEXT, "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": cluster}],
        "users": [{"name": CONTEXT, "user": {"token": token}}],
        "contexts": [{"name": CONTEXT, "context": context}],
        "current-context": CONTEXT,
    }
    return yaml.safe_dump(document, sort_keys=False)


def write_private_file(path: str, text: str) -> None:
    """
    Put a file in place in one step, readable by its owner only; an earlier one is replaced.

    :raises OSError: when that is not possible; no half-written file is left at ``path``.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o600)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
