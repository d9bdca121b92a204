"""
Real gRPC peers for tests: a server that stands in for buildkitd, and a client.

The server is also a program, ``python -m bkscaler.test.grpc_peers serve IP PORT [OPTION=VALUE ...]``, for the
pods of a sandbox, and so is a client that holds one call open, ``… call PORT``, for tests that kill it.
Messages are plain bytes. No protobuf is needed.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import grpc
from twisted.internet.defer import Deferred

ECHO, STREAM = "/test.Builder/Echo", "/test.Builder/Stream"
MAX_MESSAGE = ("grpc.max_receive_message_length", -1)


class Service(grpc.GenericRpcHandler):
    """Echoes one message, or a stream of them."""

    def service(self, handler_call_details: Any) -> Any:
        """Choose what handles a call."""
        if handler_call_details.method == ECHO:
            return grpc.unary_unary_rpc_method_handler(lambda message, _: message)
        if handler_call_details.method == STREAM:
            return grpc.stream_stream_rpc_method_handler(lambda messages, _: messages)
        return None


def serve(
    ip: str, port: int = 0, *options: tuple[str, Any], credentials: Any = None
) -> tuple[grpc.Server, int]:
    """
    Serve on an address.

    :param options: of gRPC.
    :param credentials: for TLS; None serves plain text.
    :returns: the server and its port; ``server.stop(None)`` ends it.
    """
    server = grpc.server(ThreadPoolExecutor(4), options=[MAX_MESSAGE, ("grpc.so_reuseport", 0), *options])
    server.add_generic_rpc_handlers((Service(),))
    address = f"{ip}:{port}"
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    return server, port


class Client:
    """
    A client with one connection of its own.

    :param port: on 127.0.0.1.
    :param options: of gRPC.
    :param credentials: for TLS; None speaks plain text.
    """

    def __init__(self, port: int, *options: tuple[str, Any], credentials: Any = None) -> None:
        address = f"127.0.0.1:{port}"
        everything = [MAX_MESSAGE, ("grpc.use_local_subchannel_pool", 1), *options]
        self.channel: Any
        if credentials is None:
            self.channel = grpc.insecure_channel(address, everything)
        else:
            self.channel = grpc.secure_channel(address, credentials, everything)

    def call(self, message: bytes = b"hello", timeout_s: float = 60.0) -> Any:
        """Make one call that fails when there is no connection; give its future."""
        return self.channel.unary_unary(ECHO).future(message, timeout=timeout_s)

    def stream(self, messages: Iterable[bytes], timeout_s: float = 60.0) -> Iterator[bytes]:
        """Make one call with a stream each way."""
        answers: Iterator[bytes] = self.channel.stream_stream(STREAM)(iter(messages), timeout=timeout_s)
        return answers

    def close(self) -> None:
        """Cancel every call and close the connection."""
        self.channel.close()


def answer_of(call: Any, reactor: Any) -> Deferred[Any]:
    """
    Wait for a call in the reactor.

    :returns: fires with the answer, or with the status and its details when the call has failed.
    """
    answered: Deferred[Any] = Deferred()

    def done(_: Any) -> None:
        with suppress(grpc.FutureCancelledError):
            reactor.callFromThread(answered.callback, outcome_of(call))

    call.add_done_callback(done)
    return answered


def outcome_of(call: Any) -> Any:
    """Wait for a call; give the answer, or the status and its details when the call has failed."""
    try:
        return call.result()
    except grpc.RpcError as error:
        return error.code(), error.details()


def _option(word: str) -> tuple[str, int]:
    name, _, value = word.partition("=")
    return name, int(value)


def _main(what: str, *words: str) -> None:
    if what == "serve":
        server, _ = serve(words[0], int(words[1]), *map(_option, words[2:]))
        signal.signal(signal.SIGTERM, lambda *_: server.stop(None))
        server.wait_for_termination()
    else:
        print(outcome_of(Client(int(words[0])).call()), flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
