"""The states: every pair of state and event, random walks, and the time since which a set is idle."""

import random

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.errors import IllegalMove
from bkscaler.model import Observation
from bkscaler.scaling.demand import Needs
from bkscaler.scaling.machine import MOVES, Event, Facts, Machine, State, classify
from bkscaler.test.scaling_support import pod

UP, READY = Observation(replicas=1), Observation(replicas=1, ready=(pod(),))
ZERO, GONE = Observation(replicas=0), Observation(exists=False)
NOBODY, SOMEBODY = Needs(), Needs(own=1)

FACTS: dict[State, list[Facts]] = {
    State.UNKNOWN: [Facts(observation=None, needs=needs) for needs in (NOBODY, SOMEBODY)],
    State.MISSING: [Facts(observation=GONE, needs=needs) for needs in (NOBODY, SOMEBODY)],
    State.ASLEEP: [
        Facts(observation=ZERO, needs=NOBODY),
        Facts(observation=READY, needs=NOBODY, minimum=1),
    ],
    State.WAKING: [Facts(observation=seen, needs=SOMEBODY) for seen in (ZERO, UP)],
    State.AWAKE: [Facts(observation=READY, needs=SOMEBODY, minimum=minimum) for minimum in (0, 1)],
    State.IDLE: [Facts(observation=seen, needs=NOBODY) for seen in (UP, READY)],
    State.GOING_TO_SLEEP: [
        Facts(observation=seen, needs=needs, sleep_sent=True)
        for seen in (ZERO, UP, READY, GONE)
        for needs in (NOBODY, SOMEBODY)
    ],
}


def machine_in(state: State) -> Machine:
    """Make a machine that stands in a state."""
    machine = Machine(0.0)
    machine.resume(FACTS[state][0], 0.0)
    return machine


def follows(before: Facts, event: Event, after: Facts) -> bool:
    """Tell whether an event changes one set of facts into the other."""
    same_seen, same_needs = before.observation == after.observation, before.needs == after.needs
    same_sleep = before.sleep_sent == after.sleep_sent
    return (
        before.minimum == after.minimum
        and {
            Event.ARRIVED: same_seen and same_sleep and not before.needs.holds and after.needs.holds > 0,
            Event.DEPARTED: same_seen and same_sleep and before.needs.holds > 0 and not after.needs.holds,
            Event.OBSERVED: same_needs and same_sleep and after.observation is not None,
            Event.SLEEP_SENT: same_seen
            and same_needs
            and not before.sleep_sent
            and after.sleep_sent
            and classify(before) is State.IDLE,
            Event.ANSWERED: same_seen and same_needs and before.sleep_sent and not after.sleep_sent,
        }[event]
    )


class TableTests(SynchronousTestCase):
    """The table of moves."""

    def test_no_hole(self):
        """The table says something about every state and event."""
        self.assertEqual(set(MOVES), {(state, event) for state in State for event in Event})

    def test_classify(self):
        """Facts amount to the state they are listed under."""
        for state, facts in FACTS.items():
            for each in facts:
                self.assertIs(classify(each), state)

    def test_every_pair(self):
        """From every state, every event leads to just the states that the table lists; others are refused."""
        for state in State:
            for event in Event:
                for to in State:
                    machine = machine_in(state)
                    allowed = to in MOVES[state, event]
                    if allowed:
                        self.assertEqual(machine.send(event, FACTS[to][0], 1.0), to is not state)
                        self.assertIs(machine.state, to)
                    else:
                        with self.assertRaises(IllegalMove):
                            machine.send(event, FACTS[to][0], 1.0)
                        self.assertEqual((machine.state, machine.since_s), (state, 0.0))

    def test_the_table_is_what_facts_can_do(self):
        """A move is in the table if and only if some change of one fact makes it."""
        everything = [each for facts in FACTS.values() for each in facts]
        possible = {
            (classify(before), event, classify(after))
            for before in everything
            for after in everything
            for event in Event
            if follows(before, event, after)
        }
        listed = {(state, event, to) for (state, event), moves in MOVES.items() for to in moves}
        self.assertEqual(possible - listed, set())
        self.assertEqual(listed - possible, set())


class MachineTests(SynchronousTestCase):
    """One machine over time."""

    def test_since(self):
        """The time of a state is that of the event that led there, and stays while it stays."""
        machine = Machine(1.0)
        machine.send(Event.OBSERVED, FACTS[State.IDLE][0], 2.0)
        machine.send(Event.OBSERVED, FACTS[State.IDLE][1], 3.0)
        self.assertEqual((machine.state, machine.since_s), (State.IDLE, 2.0))

    def test_idle_time_survives_a_failed_scale_down(self):
        """A scale-down that failed leaves the idle time as it was."""
        machine = machine_in(State.IDLE)
        machine.send(Event.SLEEP_SENT, Facts(observation=UP, needs=NOBODY, sleep_sent=True), 120.0)
        self.assertEqual(machine.idle_since_s, 0.0)
        machine.send(Event.ANSWERED, Facts(observation=UP, needs=NOBODY), 121.0)
        self.assertEqual((machine.idle_since_s, machine.since_s), (0.0, 121.0))

    def test_idle_time_starts_anew(self):
        """The idle time starts anew after demand, and when somebody changes the replicas."""
        machine = machine_in(State.IDLE)
        machine.send(Event.OBSERVED, Facts(observation=Observation(replicas=3), needs=NOBODY), 5.0)
        self.assertEqual(machine.idle_since_s, 5.0)
        machine.send(Event.ARRIVED, Facts(observation=Observation(replicas=3), needs=SOMEBODY), 6.0)
        self.assertIsNone(machine.idle_since_s)
        machine.send(Event.DEPARTED, Facts(observation=Observation(replicas=3), needs=NOBODY), 7.0)
        self.assertEqual(machine.idle_since_s, 7.0)

    def test_demand_during_a_scale_down(self):
        """Demand that came and went during a failed scale-down starts the idle time anew."""
        machine = machine_in(State.IDLE)
        for event, needs, sent, now_s in [
            (Event.SLEEP_SENT, NOBODY, True, 1.0),
            (Event.ARRIVED, SOMEBODY, True, 2.0),
            (Event.DEPARTED, NOBODY, True, 3.0),
            (Event.ANSWERED, NOBODY, False, 4.0),
        ]:
            machine.send(event, Facts(observation=UP, needs=needs, sleep_sent=sent), now_s)
        self.assertEqual(machine.idle_since_s, 4.0)

    def test_resume(self):
        """After a refused move the machine can be set to what the facts amount to."""
        machine = machine_in(State.ASLEEP)
        self.assertRaises(IllegalMove, machine.send, Event.ANSWERED, FACTS[State.AWAKE][0], 1.0)
        self.assertTrue(machine.resume(FACTS[State.AWAKE][0], 1.0))
        self.assertFalse(machine.resume(FACTS[State.AWAKE][0], 2.0))
        self.assertEqual((machine.state, machine.since_s), (State.AWAKE, 1.0))

    def test_random_walks(self):
        """However facts change one at a time, no move is refused, and only idleness has an idle time."""
        chance = random.Random(7)
        for _ in range(200):
            machine, facts, idle_since_s = Machine(0.0), Facts(observation=None, needs=NOBODY), None
            for now_s in range(1, 80):
                before = facts
                event, facts = self.change(chance, before)
                machine.send(event, facts, float(now_s))
                self.assertIs(machine.state, classify(facts))
                if machine.state is State.IDLE:
                    idle_since_s = machine.idle_since_s
                    self.assertTrue(idle_since_s is not None and idle_since_s <= now_s)
                elif machine.state is not State.GOING_TO_SLEEP:
                    self.assertIsNone(machine.idle_since_s)

    def change(self, chance: random.Random, before: Facts) -> tuple[Event, Facts]:
        """Choose an event that can happen now, and give the facts after it."""
        needs, seen, sent = before.needs, before.observation, before.sleep_sent
        choices = ["seen", "demand", "answered" if sent else "seen"]
        if classify(before) is State.IDLE:
            choices.append("sleep")
        choice = chance.choice(choices)
        if choice == "seen":
            seen = chance.choice([UP, READY, ZERO, GONE, Observation(replicas=3)])
            return Event.OBSERVED, Facts(observation=seen, needs=needs, sleep_sent=sent)
        if choice == "demand":
            event, needs = (Event.DEPARTED, NOBODY) if needs.holds else (Event.ARRIVED, SOMEBODY)
            return event, Facts(observation=seen, needs=needs, sleep_sent=sent)
        event = Event.SLEEP_SENT if choice == "sleep" else Event.ANSWERED
        return event, Facts(observation=seen, needs=needs, sleep_sent=choice == "sleep")
