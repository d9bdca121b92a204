"""What ``--check`` finds: each side of a StatefulSet, its Service, and a server that cannot be asked."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import read_settings
from bkscaler.doctor import WIDTH, as_table, check
from bkscaler.examination import Finding, Level, examine_service, examine_set
from bkscaler.kube.auth import ClusterAccess, NoCredentials
from bkscaler.sandbox.manifests import default_set, service_manifest, set_manifest
from bkscaler.test.test_kube_support import Api, status

GRPC = {"grpc": {"port": 8273}, "periodSeconds": 1}


def make_set(**pod: Any) -> dict[str, Any]:
    """Make a StatefulSet without faults; what is given changes it."""
    value = set_manifest("buildkitd", replicas=pod.get("replicas", 1), port=8273)
    default_set(value)
    template = value["spec"]["template"]["spec"]
    container = template["containers"][0]
    container["readinessProbe"] = pod.get("probe", GRPC)
    container["args"] = pod.get("args", ["--addr", "tcp://0.0.0.0:8273"])
    container["ports"] = pod.get("ports", container["ports"])
    template["terminationGracePeriodSeconds"] = pod.get("grace", 30)
    claim = {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}
    template["volumes"] = pod.get("volumes", [claim])
    return value


class ExaminationTests(SynchronousTestCase):
    """One StatefulSet after the other."""

    def findings(self, value, **flags):
        """Examine a StatefulSet; give the findings by subject."""
        settings = read_settings({key.replace("_", "-"): text for key, text in flags.items()}, {})
        return {finding.subject: finding for finding in examine_set(value, settings)}

    def assert_found(self, value, subject, level, words, **flags):
        """Check one finding; what is more than fine says what to do."""
        finding = self.findings(value, **flags)[subject]
        self.assertIs(finding.level, level, finding)
        self.assertIn(words, finding.words)
        if level in (Level.WARN, Level.FAIL):
            self.assertTrue(finding.todo)

    def test_without_faults(self):
        """A set without faults has nothing to be said against it."""
        self.assertEqual([f for f in self.findings(make_set()).values() if f.level is not Level.OK], [])

    def test_port(self):
        """What buildkitd is told to listen on counts; what its container declares is a hint."""
        cases = [
            (["--addr", "tcp://0.0.0.0:1234"], [], Level.FAIL, "listens on 1234"),
            (["--addr=tcp://0.0.0.0:1234", "--addr=tcp://[::]:8273"], [], Level.OK, "8273"),
            (["--addr", "tcp://:8273"], [], Level.OK, "8273"),
            (["--addr", "tcp://127.0.0.1:8273"], [], Level.FAIL, "inside its pod only"),
            (["--addr", "unix:///run/x.sock"], [{"containerPort": 8273}], Level.OK, "8273"),
            ([], [{"containerPort": 1234}], Level.WARN, "only [1234]"),
            ([], [], Level.WARN, "no container declares 8273"),
            (["--proxy", "tcp://x:1234"], [{"containerPort": 8273}], Level.OK, "8273"),
        ]
        for args, ports, level, words in cases:
            self.assert_found(make_set(args=args, ports=ports), "port", level, words)
        self.assert_found(make_set(), "port", Level.FAIL, "--target-port is 1", target_port="1")

    def test_readiness(self):
        """A slow probe is told with what it adds; none, or one that cannot work, is worse."""
        cases = [
            ({**GRPC, "periodSeconds": 2}, Level.OK, "up to 2 s"),
            ({"grpc": {}}, Level.WARN, "up to 10 s"),
            ({**GRPC, "initialDelaySeconds": 5}, Level.WARN, "up to 6 s"),
            ({**GRPC, "successThreshold": 3}, Level.WARN, "up to 3 s"),
            ({"httpGet": {}, "periodSeconds": 1}, Level.WARN, "HTTP"),
            ({}, Level.WARN, "there is none"),
        ]
        for probe, level, words in cases:
            self.assert_found(make_set(probe=probe), "readinessProbe", level, words)
        started = make_set()
        started["spec"]["template"]["spec"]["containers"][0]["startupProbe"] = {"grpc": {"port": 8273}}
        self.assert_found(started, "readinessProbe", Level.WARN, "up to 11 s")
        unwaited = make_set(probe={})
        self.assert_found(unwaited, "readinessProbe", Level.OK, "not waited for", readiness="grpc")

    def test_names(self):
        """The name of the Service matters when pods are dialled by name only."""
        value = make_set()
        self.assert_found(value, "serviceName", Level.NOTE, "other", headless_service_name="other")
        flags = {"headless_service_name": "other", "target_address": "dns"}
        self.assert_found(value, "serviceName", Level.FAIL, "other", **flags)

    def test_replicas(self):
        """A set that is going away does not work; one with several replicas is worth a note."""
        self.assert_found(make_set(replicas=0), "StatefulSet", Level.OK, "asleep")
        self.assert_found(make_set(replicas=3), "StatefulSet", Level.NOTE, "3 replicas")
        self.assert_found(make_set(replicas=3), "podManagementPolicy", Level.WARN, "OrderedReady")
        going = make_set()
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        self.assert_found(going, "StatefulSet", Level.FAIL, "being deleted")

    def test_grace_period(self):
        """Too short a grace period loses the cache, too long a one lets clients wait."""
        for grace, level in (
            (0, Level.WARN),
            (4, Level.WARN),
            (5, Level.OK),
            (120, Level.OK),
            (3600, Level.WARN),
        ):
            self.assert_found(make_set(grace=grace), "grace period", level, f"{grace} s")

    def test_cache(self):
        """A cache that sleep destroys is told."""
        self.assert_found(make_set(volumes=[]), "build cache", Level.NOTE, "no volume")
        deleted = make_set()
        deleted["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"] = "Delete"
        self.assert_found(deleted, "build cache", Level.WARN, "deleted with each sleep")

    def test_odd_objects(self):
        """Whatever the object looks like, there are findings and no exception."""
        for odd in ({}, {"spec": 5}, {"spec": {"template": {"spec": {"containers": [{"args": "x"}]}}}}):
            self.assertEqual(len(self.findings(odd)), 7)

    def test_service(self):
        """A Service that gives pods no names is a failure where names are dialled."""
        owner = make_set()
        good = service_manifest("buildkitd-headless", "buildkitd", 8273)
        balanced = {**good, "spec": {**good["spec"], "clusterIP": "10.0.0.1"}}
        other = {**good, "spec": {**good["spec"], "selector": {"app": "other"}}}
        for value, by_ip, by_name in (
            (good, Level.OK, Level.OK),
            (balanced, Level.NOTE, Level.FAIL),
            (other, Level.NOTE, Level.FAIL),
        ):
            for address, level in (("pod-ip", by_ip), ("dns", by_name)):
                settings = read_settings({"target-address": address}, {})
                self.assertIs(examine_service(value, owner, settings).level, level)
        settings = read_settings({"target-address": "dns", "readiness": "grpc"}, {})
        self.assertIs(examine_service(good, owner, settings).level, Level.WARN)


class CheckTests(SynchronousTestCase):
    """A server that answers in odd ways; how it looks when all is well is tested with a sandbox."""

    def verdict(self, *answers, **access):
        """Check; requests are answered with these codes in turn, the last for all others; 0 refuses."""
        api = Api()
        text: list[str] = []
        reached = ClusterAccess(server="https://k", ca_pem=None, credentials=NoCredentials(), **access)
        outcome = api.start(check(api.client, reached, read_settings({}, {}), text.append))
        codes = list(answers)
        while api.dials:
            code = codes.pop(0) if len(codes) > 1 else codes[0]
            if code:
                connection = api.accept()
                connection.request()
                connection.answer(code, {"status": {"allowed": True}} if code < 400 else status(code, "X"))
            else:
                api.refuse()
        return outcome.result, "".join(text)

    def test_out_of_reach(self):
        """A server that cannot be asked is the only finding, with what to look at."""
        for code, words in ((0, "connection refused"), (401, "log in anew"), (429, "429 X")):
            works, table = self.verdict(code)
            self.assertFalse(works)
            self.assertIn(words, table)
            self.assertEqual(table.count("API server"), 1)

    def test_unsure_of_rights(self):
        """A server that does not tell our rights is worth a warning; what can be read decides."""
        works, table = self.verdict(404, 500, 403)
        self.assertIn("does not say what we may do", table)
        self.assertIn("cannot be read", table)
        self.assertFalse(works)

    def test_unverified(self):
        """A server whose certificate is not checked is told."""
        self.assertIn("insecure-skip-tls-verify", self.verdict(201, verify=False)[1])

    def test_table(self):
        """Lines are wrapped, and commands are left whole to be copied."""
        todo = "grant it with: kubectl " + "x" * 200
        table = as_table([Finding(level=Level.FAIL, subject="rights", words="word " * 60, todo=todo)])
        *lines, last = table.splitlines()
        self.assertTrue(all(len(line) <= WIDTH for line in lines))
        self.assertTrue(last.endswith(todo))
