"""
Ways to break scaling and the look at the cluster, each of which some seed has to find out.

Mistakes that somebody might make: a check that is forgotten, a bound that is off, a wait that is not ended.
Imported by :mod:`bkscaler.simulation.mutants`, as :mod:`bkscaler.simulation.misserving` is.
"""

from __future__ import annotations

from bkscaler.backoff import Backoff
from bkscaler.simulation.breaking import Ways, line, value

FAST = Backoff(first_s=0.001, limit_s=0.002)

SCALING: Ways = {
    "the builder sleeps a second early": (
        line(
            "scaling.service:decide",
            "due_s = idle_since_s + limits.idle_timeout_s",
            "due_s = idle_since_s + limits.idle_timeout_s - 1.0",
        ),
    ),
    "the builder never sleeps": (line("scaling.service:decide", "if now_s < due_s:", "if True:"),),
    "a new client does not end the idle time": (
        line(
            "scaling.machine:Machine._keep_idle_time",
            "    self.idle_since_s = None\n        return",
            "    return",
        ),
    ),
    "somebody else's scaling does not begin a new idle time": (
        line(
            "scaling.machine:Machine._keep_idle_time",
            " or facts.observation.replicas != self._idle_replicas",
            "",
        ),
    ),
    "the end of one client's demand ends everybody's": (
        line("scaling.demand:Demand.discard", "self._names.remove(name)", "self._names.clear()"),
    ),
    "demand is not given back by who has been reset": (
        line(
            "frontend.session:Session._serve",
            "        hold.release()",
            "        self.held.leg.is_lost or hold.release()",
        ),
    ),
    "a scale-down without a look": (
        line(
            "scaling.service:Scaler._act",
            "(self._requests.check if decision.down else self._requests.start)(decision)",
            "(lambda d: self._sleep_if_idle(9e9) if d.down else self._requests.start(d))(decision)",
        ),
    ),
    "a scale-down is not decided anew after the look": (
        line(
            "scaling.service:Scaler._sleep_if_idle",
            "decision, idle_since_s = self._decide(), self._machine.idle_since_s",
            "decision, idle_since_s = replace(self._requests._last), looked_s",
        ),
    ),
    "a look of another idle time counts": (
        line("scaling.service:Scaler._sleep_if_idle", "idle_since_s <= looked_s", "True"),
    ),
    "endless conflicts are no reason": (
        line("scaling.requests:ScaleRequests._send", "None if usual else error", "None"),
    ),
    "replicas are given away while a scale-down is on its way": (
        line(
            "scaling.service:Scaler.ready_now",
            "self._machine.state is not State.AWAKE or self._observation is None",
            "self._observation is None or not self._observation.ready",
        ),
    ),
    "give-up-after is ignored": (
        line("scaling.service:Scaler._tell_hopeless", "if self._observation is not None and", "if False and"),
    ),
    "polls read nothing": (line("scaling.service:Scaler._poll", "self._requests.refresh()", "pass"),),
    "scale requests are repeated at once": (
        value("scaling.requests:UP_RETRY", FAST),
        value("scaling.requests:DOWN_RETRY", FAST),
    ),
    "Retry-After is ignored": (
        line("scaling.requests:_asked_to_wait_s", "return min(", "return 0.0 and min("),
        line("kube.watch:_asked_to_wait_s", "return error.retry_after_s or", "return 0.0 and"),
    ),
    "two scale requests at a time": (
        line(
            "scaling.requests:ScaleRequests.free_for", "if self._sending or self._stopped", "if self._stopped"
        ),
    ),
    "a draining process sends the builder to sleep": (
        line(
            "scaling.service:Scaler.drain",
            "idle_timeout_s=math.inf",
            "idle_timeout_s=self._limits.idle_timeout_s",
        ),
    ),
    "a missing set is told of at once": (
        line("scaling.service:Scaler._tell_missing", " and self._clock.seconds() >= over_s", ""),
    ),
    "a lost answer is taken for a request that was not carried out": (
        line("scaling.requests:may_have_happened", "return error.sent", "return False"),
    ),
    "what was carried out without an answer does not count": (
        line("scaling.requests:ScaleRequests.lapsed", "if unanswered and", "if False and"),
        line("scaling.requests:ScaleRequests.unfinished", "(self._paused and", "(False and"),
    ),
    "an answer of 500 is taken for certain": (
        line("scaling.requests:may_have_happened", "error.code < 500", "error.code < 600"),
    ),
    "one waiter that leaves takes the others along": (
        line(
            "scaling.waiters:Waiters.add",
            "Deferred(self._since_s.__delitem__)",
            "Deferred(lambda _: (self._since_s.pop(waiter), self.fail('')))",
        ),
    ),
    "a set that was missing when the API was lost is missing": (
        line("scaling.service:Scaler.wait", "if self._machine.state is State.MISSING:", "if False:"),
        line(
            "scaling.service:Scaler._act",
            "tell_s if soon else math.inf, self._poll",
            "tell_s if missing else math.inf, self._tell_missing",
        ),
    ),
    "two replicas are asked for": (
        line("scaling.service:decide", "ScaleTo(replicas=wanted", "ScaleTo(replicas=2"),
    ),
    "that there is no set is never told": (
        line("scaling.service:Scaler._heard_from_api", "self._tell_missing()", "pass"),
    ),
    "that the API does not answer is not told": (
        line("scaling.service:Scaler._heard_from_api", "self._troubles[what] = str(error)", "pass"),
    ),
    "a scale request that has failed is told of for ever": (
        line("scaling.service:Scaler._act", "self._troubles.pop(SCALE, None)", "pass"),
    ),
}
KUBE: Ways = {
    "pods that are terminating are used": (
        line(
            "kube.pods:parse",
            'terminating=bool(fields.text(value, "metadata", "deletionTimestamp"))',
            "terminating=False",
        ),
    ),
    "a set that is being deleted is used": (
        line(
            "kube.statefulset:parse",
            'terminating=bool(fields.text(value, "metadata", "deletionTimestamp"))',
            "terminating=False",
        ),
    ),
    "a pod that runs is taken for ready": (
        line("kube.pods:usable_replicas", " and (pod.ready or not require_ready)", ""),
    ),
    "pods that the spec does not ask for are no suspects": (
        line("kube.store:ClusterStore._condemn", "if self._set is not None:", "if False:"),
    ),
    "a leap of the generation is no cause for suspicion": (
        line(
            "kube.store:ClusterStore._take_set",
            "leapt = seen.generation - before.generation not in (0, 1)",
            "leapt = False",
        ),
    ),
    "suspects are cleared without proof": (
        line(
            "kube.store:ClusterStore.pods_read",
            "if caught_up is not None and self._still(caught_up):",
            "if True:",
        ),
    ),
    "a server that has gone back is followed at once": (value("kube.behind:FOLLOWED_AFTER_S", 0.0),),
    "a server that has gone back is never followed": (value("kube.behind:FOLLOWED_AFTER_S", float("inf")),),
    "an answer that was long under way is taken for new": (
        line("kube.behind:Behind.weigh", "if asked_s - self._since_s", "if now_s - self._since_s"),
    ),
    "that a server is behind is forgotten between two looks": (value("kube.behind:FORGOTTEN_AFTER_S", 0.1),),
    "watches go on from where they were when a server is followed": (
        line("kube.watches:Watches._weigh", "self._begin_anew()", "pass"),
    ),
    "the pods of a server that is followed are not": (
        line("kube.watches:Watches._weigh", "self._pods_behind.follow()", "pass"),
    ),
    "the set of a server that is followed is not": (
        line("kube.watches:Watches._weigh", "self._set_behind.follow()", "pass"),
    ),
    "what an older list says is overtaken by what was known": (
        line(
            "kube.store:ClusterStore.set_read",
            "is_older(version, self._set_floor) and not is_older(version, mark.set_floor)",
            "is_older(version, self._set_floor)",
        ),
        line(
            "kube.store:ClusterStore.pods_read",
            "is_older(version, self._pods_floor) and not is_older(version, mark.pods_floor)",
            "is_older(version, self._pods_floor)",
        ),
    ),
    "what is known is noted after a list has come": (
        line(
            "kube.watches:_Watch.on_list",
            "if self._is_set:",
            "self._mark = self._store.mark()\n    if self._is_set:",
        ),
        line(
            "kube.watches:Watches._weigh",
            "behind.weigh(version, floor, asked_s)",
            "mark = self._store.mark()\n"
            "    floor = mark.set_floor if behind is self._set_behind else mark.pods_floor\n"
            "    behind.weigh(version, floor, asked_s)",
        ),
    ),
    "a watch that goes on in another history shows that the server is not behind": (
        line("kube.watches:_Watch._may_resume", "return not", "return True or not"),
        line("kube.watches:_Watch.on_event", "if self._store.mark() != before:", "if True:"),
    ),
    "silent watches are never listed anew": (value("kube.watch:SILENT_WATCHES", 10**9),),
    "a read that is older than what is known is believed": (
        line("kube.behind:Behind.weigh", "if not is_older(version, floor):", "if True:"),
        line("kube.watches:Watches._weigh", "if not is_older(version, floor):", "if True:"),
    ),
    "410 is taken for an ordinary end": (
        line(
            "kube.watch:Reflector._watch",
            "        decoder.finish()\n",
            "        decoder.finish()\n    except Gone:\n        return\n",
        ),
    ),
    "what the watches tell waits for a poll": (
        line("kube.watches:_Watch.on_settled", "self._watches._on_change()", "pass"),
    ),
    "watches are begun anew at once": (
        line(
            "kube.watch:Reflector.__init__",
            "self._retry = retry",
            "self._retry = Backoff(first_s=0.001, limit_s=0.002)",
        ),
    ),
    "old events of pods are believed": (
        line(
            "kube.store:ClusterStore.pod_event",
            " or not is_newer(seen.resource_version, than=self._pods_floor)",
            "",
        ),
    ),
    "the deletion of the set is not heard": (
        line("kube.store:ClusterStore.set_event", 'None if kind == "DELETED" else seen', "seen"),
    ),
    "the answer to a scale request is not heeded": (
        line("kube.cluster:ClusterView.scale", "self._store.scaled(*answer)", "pass"),
    ),
    "a late answer to a scale request is believed": (
        line("kube.store:ClusterStore.scaled", " or not is_newer(version, than=known.resource_version)", ""),
    ),
    "a refresh reads no pods": (
        line(
            "kube.cluster:ClusterView.refresh",
            "if self._stopped or known is None or not known.selector:",
            "if True:",
        ),
    ),
    "scale requests are unconditional": (
        line("kube.statefulset:scale", '"metadata": {"resourceVersion": resource_version}', '"metadata": {}'),
    ),
    "requests have no time limit": (
        line(
            "kube.client:ApiClient._in_time",
            "return await deferred.addTimeout(timeout_s, self._clock, onTimeoutCancel=too_late)",
            "return await deferred",
        ),
    ),
    "dead connections are used again": (
        line("kube.client:ApiClient._drop_idle", "if self._pool is not None:", "if False:"),
    ),
    "a controller has always caught up": (
        line(
            "kube.statefulset:StatefulSetView.caught_up",
            "self.observed_generation >= self.generation",
            "True",
        ),
    ),
    "a controller that is two generations behind has caught up": (
        line(
            "kube.statefulset:StatefulSetView.caught_up",
            ">= self.generation",
            ">= self.generation - 2",
        ),
    ),
    "lists are trusted after a leap": (
        line("kube.store:ClusterStore._take_set", "self._distrust_lists = True", "pass"),
    ),
    "suspects are never cleared": (
        line("kube.store:ClusterStore.pods_read", "self._suspects.clear()", "pass"),
    ),
    "a proof about another spec counts": (
        line("kube.store:ClusterStore._still", "self._set.generation == caught_up.generation", "True"),
    ),
    "a proof from after the pods were read counts": (
        line(
            "kube.store:ClusterStore.pods_read",
            "if caught_up is not None and self._still(caught_up):",
            "if self._set is not None and self._set.caught_up:",
        ),
    ),
    "no refresh is asked for when only suspicion is left": (
        line("kube.cluster:ClusterView._ask_soon", "if known is None or", "if True or"),
    ),
    "pods that are made for a spec that is over are trusted": (
        line(
            "kube.store:ClusterStore._may_be_of_old",
            "return self._doubtful is not None or not",
            "return False and",
        ),
        line("kube.store:ClusterStore.pods_read", "if self._distrust_lists:", "if False:"),
    ),
    "pods whose birth is heard of late are trusted": (
        line(
            "kube.store:ClusterStore._may_be_of_old",
            " or not is_newer(born.resource_version, than=self._trusted_from)",
            "",
        ),
    ),
    "pods of a set that is gone are used": (line("kube.pods:serves", " and pod.owner_uid == owner.uid", ""),),
    "a scale-down that has failed begins a new idle time": (
        line(
            "scaling.machine:Machine._keep_idle_time",
            "if to is State.GOING_TO_SLEEP and not facts.needs.holds:",
            "if False:",
        ),
    ),
    "who comes while a scale-down is on its way is not held": (
        line(
            "scaling.machine:classify",
            "if facts.sleep_sent:",
            "if facts.sleep_sent and not facts.needs.holds:",
        ),
    ),
}
