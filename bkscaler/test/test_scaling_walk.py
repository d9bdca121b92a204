"""The scaler in seeded random worlds: whatever goes wrong on the way, nobody is given a dying pod or left."""

import random

from bkscaler.errors import ApiStatus, ApiUnreachable, Conflict, Forbidden, WakeImpossible
from bkscaler.scaling.machine import State
from bkscaler.test.scaling_support import IDLE_S, REFUSED, Client, ScalerTestCase, pod

ERRORS = [
    REFUSED,
    ApiStatus(500, "InternalError", "broken"),
    ApiStatus(429, "", "slow down", retry_after_s=2.0),
    Conflict(409, "Conflict", "modified"),
    Forbidden(403, "Forbidden", "no"),
]


class World:
    """One random life: a scaler, its cluster, clients, and chance."""

    def __init__(self, case, seed):
        self.chance = random.Random(seed)
        self.case = case
        self.scaler, self.cluster = case.build()
        self.clients = []
        self.made = 0
        self.pods = 0

    def step(self):
        """Let one thing happen."""
        steps = [self.arrive, self.leave, self.wait, self.answer, self.grow, self.show]
        self.chance.choice([*steps, *steps, self.api, self.long_wait, self.read, self.read])()

    def arrive(self):
        self.made += 1
        client = Client(self.scaler, f"client {self.made}")
        client.wait.addCallback(lambda _: self.check(client))
        self.clients.append(client)

    def check(self, client):
        """Whoever is served is given a pod that is not dying."""
        if client.replica is not None:
            self.case.assertIn(client.replica, self.cluster.truth.ready)

    def leave(self):
        if self.clients:
            self.clients.pop(self.chance.randrange(len(self.clients))).leave()

    def wait(self):
        self.cluster.clock.advance(self.chance.choice([0.1, 0.5, 2.0, 5.0]))

    def long_wait(self):
        self.cluster.clock.advance(IDLE_S)

    def open_call(self):
        """Give the request that has no answer yet."""
        return next((call for call in self.cluster.scales if not call.deferred.called), None)

    def answer(self):
        call = self.open_call()
        if call is None:
            return
        if call.version != self.cluster.truth.resource_version:
            call.fails(ERRORS[3])
        elif self.chance.random() < 0.5:
            call.ok()
        elif self.chance.random() < 0.5:
            call.answer_lost(took_effect=self.chance.random() < 0.5)
        else:
            call.fails(self.chance.choice(ERRORS))

    def grow(self):
        """Let the pod of a set that has a replica become ready."""
        if self.cluster.truth.replicas and not self.cluster.truth.ready:
            self.pods += 1
            self.cluster.change(ready=(pod(f"pod {self.pods}"),))

    def show(self):
        self.cluster.show()

    def api(self):
        """Let the API come and go, or be slow."""
        self.cluster.trouble = self.chance.choice([None, None, REFUSED, ApiUnreachable("lost", sent=True)])
        self.cluster.slow = self.chance.random() < 0.2

    def read(self):
        if self.cluster.open_looks:
            self.cluster.answer_look(self.cluster.trouble)

    def heal(self):
        """Let everything work again, for a while."""
        self.cluster.trouble, self.cluster.slow = None, False
        for _ in range(200):
            while self.cluster.open_looks:
                self.cluster.answer_look()
            if self.open_call() is not None:
                call = self.open_call()
                stale = call.version != self.cluster.truth.resource_version
                call.fails(ERRORS[3]) if stale else call.ok()
            self.grow()
            self.cluster.show()
            self.cluster.clock.advance(1)


class WalkTests(ScalerTestCase):
    """Many worlds."""

    def test_walks(self):
        """Nobody is given a dying pod; once all is well those who wait are served, and then all sleeps."""
        for seed in range(60):
            world = World(self, seed)
            for _ in range(120):
                world.step()
            world.heal()
            for client in world.clients:
                refused = isinstance(client.error, WakeImpossible)
                self.assertTrue(client.replica is not None or refused, f"seed {seed}: {world.scaler}")
            while world.clients:
                world.leave()
            world.cluster.clock.advance(IDLE_S)
            world.heal()
            self.assertIs(world.scaler.snapshot().state, State.ASLEEP, f"seed {seed}")
            world.cluster.clock.advance(60)
            self.assertEqual(world.cluster.clock.getDelayedCalls(), [], f"seed {seed}")
        self.assertEqual(self.flushLoggedErrors(), [])
