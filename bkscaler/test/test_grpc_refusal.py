"""Tests of the words that a real gRPC client reads when the builder does not come, from the API on."""

from __future__ import annotations

import os

import grpc
from twisted.internet import reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from bkscaler.test.grpc_peers import Client, answer_of
from bkscaler.test.processes import delete_set
from bkscaler.test.whole import Whole


class ReasonTests(TestCase):
    """Whole proxies before sandboxes whose pods fail."""

    timeout = 20

    async def whole(self, *sandbox, bkscaler=()):
        """Start a sandbox and a bkscaler."""
        kubeconfig = os.path.abspath(self.mktemp())
        whole = Whole(reactor, kubeconfig, sandbox=sandbox, bkscaler=bkscaler)
        await whole.start()
        self.addCleanup(whole.stop)
        return whole

    async def refusals(self, whole):
        """Make a call, and another on the same connection when the first has failed; give what both read."""
        client = Client(whole.port)
        self.addCleanup(client.close)
        return [await answer_of(client.call(), reactor) for _ in range(2)]

    async def reason(self, failure):
        """Let pods fail; give what a client reads that is given up after 12 s."""
        whole = await self.whole("--fail", failure, bkscaler=("--ready-wait-timeout", "12s"))
        (status, words), again = await self.refusals(whole)
        self.assertEqual((status, words), again)
        self.assertEqual(status, grpc.StatusCode.FAILED_PRECONDITION)
        return words

    async def test_unschedulable(self):
        """No node fits: the scheduler's own words."""
        self.assertEqual(
            await self.reason("unschedulable"),
            "buildkitd not ready after 12s: pod buildkitd-0: 0/1 nodes are available: 1 Insufficient cpu",
        )

    async def test_image_pull(self):
        """The image cannot be pulled: which, and why."""
        words = await self.reason("imagepull")
        before, _, after = words.partition("moby/buildkit:v0.13.0: ")
        self.assertEqual(before, "buildkitd not ready after 12s: pod buildkitd-0: cannot pull image ")
        self.assertRegex(after, "moby/buildkit:v0.13.0: not found$")

    async def test_crash(self):
        """The container keeps crashing: how it ends."""
        words = await self.reason("crash")
        self.assertRegex(words, "pod buildkitd-0: container buildkitd keeps ending: exit code 1, restarted")

    async def test_never_ready(self):
        """The pod runs and never becomes ready: its readiness probe."""
        words = await self.reason("neverready")
        self.assertRegex(words, "pod buildkitd-0: running, but its readiness probe has not passed")

    async def test_deleted(self):
        """A StatefulSet that is deleted while a client is held: that there is none, before the deadline."""
        whole = await self.whole("--fail", "unschedulable")
        client = Client(whole.port)
        self.addCleanup(client.close)
        call = client.call()
        await whole.time.passing(5.0)
        await deferToThread(delete_set, whole.kubeconfig)
        refusal = (
            grpc.StatusCode.FAILED_PRECONDITION,
            "buildkitd not ready: there is no StatefulSet buildkitd",
        )
        self.assertEqual(await answer_of(call, reactor), refusal)
        self.assertEqual(await answer_of(client.call(), reactor), refusal)
