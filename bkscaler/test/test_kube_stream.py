"""Tests of long answers: bytes handed on as they come, every end and every failure told apart."""

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from bkscaler import errors
from bkscaler.test.test_kube_support import Api, ChangingToken, status


class StreamTests(SynchronousTestCase):
    """Answers that go on for long."""

    def setUp(self):
        self.told, self.got, self.opened = [], [], 0
        self.api = Api(on_response=lambda verb, code: self.told.append((verb, code)))
        self.addCleanup(lambda: self.assertEqual(self.api.pending_calls(), []))

    def on_open(self):
        self.opened += 1

    def begin(self, on_bytes=None, on_open=None):
        outcome = self.api.start(
            self.api.client.stream(
                "/watch",
                params={"watch": "1"},
                on_open=on_open or self.on_open,
                on_bytes=on_bytes or self.got.append,
                silence_s=90,
            )
        )
        return outcome, self.api.accept()

    def test_bytes_and_clean_end(self):
        """Bytes are handed on as they come, and an orderly end gives None."""
        outcome, connection = self.begin()
        self.assertEqual(self.opened, 0)
        connection.stream()
        self.assertEqual((self.opened, self.told), (1, [("WATCH", 200)]))
        connection.chunk(b"one")
        self.assertEqual(self.got, [b"one"])
        connection.chunk(b"two")
        connection.end()
        self.assertEqual((outcome.done, outcome.error, self.got), (True, None, [b"one", b"two"]))

    def test_status(self):
        """A stream that is refused raises the error of its status, and never opens."""
        outcome, connection = self.begin()
        connection.answer(410, status(410, "Expired"))
        self.assertIsInstance(outcome.error, errors.Gone)
        self.assertEqual((self.opened, self.told), (0, [("WATCH", 410)]))

    def test_401(self):
        """A stream reads credentials again after a 401, as a request does."""
        token = ChangingToken()
        self.api = Api(token)
        outcome, connection = self.begin()
        connection.answer(401, "")
        connection = self.api.accept()
        self.assertEqual(connection.request()[2]["authorization"], "Bearer token-1")
        connection.stream()
        connection.end()
        self.assertIsNone(outcome.error)

    def test_silence(self):
        """Too long a silence ends the stream and its connection; each byte starts the time anew."""
        outcome, connection = self.begin()
        connection.stream()
        self.api.clock.advance(89)
        connection.chunk(b"x")
        self.api.clock.advance(89)
        self.assertFalse(outcome.done)
        self.api.clock.advance(1)
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)
        self.assertIn("90 s", str(outcome.error))
        self.assertFalse(connection.open)

    def test_no_head_in_time(self):
        """A stream that is not answered is given up much sooner than a silent one."""
        outcome, connection = self.begin()
        self.api.clock.advance(15)
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)
        self.assertFalse(connection.open)

    def test_cut(self):
        """A stream that is cut raises."""
        outcome, connection = self.begin()
        connection.stream()
        connection.chunk(b"half")
        connection.cut()
        self.assertIsInstance(outcome.error, errors.ApiUnreachable)

    def test_receiver_raises(self):
        """What the receiver raises ends the stream, and no more bytes come."""

        def refuse(data):
            self.got.append(data)
            raise errors.WatchProtocolError("no")

        outcome, connection = self.begin(refuse)
        connection.stream()
        connection.chunk(b"one")
        self.assertIsInstance(outcome.error, errors.WatchProtocolError)
        self.assertFalse(connection.open)
        self.assertEqual(self.got, [b"one"])

    def test_receiver_refuses_to_open(self):
        """What on_open raises closes the connection too."""

        def refuse():
            raise errors.WatchProtocolError("no")

        outcome, connection = self.begin(on_open=refuse)
        connection.stream()
        self.assertIsInstance(outcome.error, errors.WatchProtocolError)
        self.assertFalse(connection.open)

    def test_cancel(self):
        """Cancelling closes the connection at once."""
        for begun in (False, True):
            outcome, connection = self.begin()
            if begun:
                connection.stream()
            outcome.cancel()
            self.assertIsInstance(outcome.error, CancelledError)
            self.assertFalse(connection.open)
