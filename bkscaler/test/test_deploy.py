"""
Tests of ``deploy/``: what is installed is valid, agrees with the code, and is all there, or they are skipped.

The schemas are those of ``kubernetes-validate``; ``kubectl``, where there is one, renders the kustomization.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from bkscaler.config import SETTINGS, read_settings
from bkscaler.shutdown import CUT_LIMIT_S

try:
    import kubernetes_validate  # type: ignore[import-untyped]  # it has no annotations
except ImportError:
    kubernetes_validate = None

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBECTL = shutil.which("kubectl")
VERSIONS = ("1.30", "1.37")
"""The oldest version of Kubernetes that the manifests are meant for, and a recent one."""
FOREIGN = ("monitoring",)
"""Folders with kinds that Kubernetes itself does not have."""
IMAGE = "your-repo/buildkitd-autoscaler:your-tag"
RIGHTS = {
    ("apps", "statefulsets", "buildkitd", ("get", "list", "watch")),
    ("apps", "statefulsets/scale", "buildkitd", ("get", "patch")),
    ("", "pods", "", ("get", "list", "watch")),
    ("events.k8s.io", "events", "", ("create", "patch")),
}
PATIENCE_S = 60

Manifest = dict[str, Any]


def load(path: Path) -> list[Manifest]:
    """Read every document of a file."""
    return [each for each in yaml.safe_load_all(path.read_text()) if each]


def identity(manifest: Manifest) -> tuple[str, str, str]:
    """Give kind, namespace and name."""
    meta = manifest["metadata"]
    return manifest["kind"], meta.get("namespace", ""), meta["name"]


class DeployCase(SynchronousTestCase):
    """Reads manifests."""

    def setUp(self) -> None:
        if not KUBERNETES.is_dir():
            self.skipTest("the manifests are not installed")

    def one(self, kind: str, folder: Path = KUBERNETES) -> Manifest:
        """Give the one manifest of a kind."""
        (found,) = [m for path in sorted(folder.glob("*.yaml")) for m in load(path) if m["kind"] == kind]
        return found

    def all(self) -> Iterator[tuple[str, Manifest]]:
        """List every manifest that Kubernetes itself knows, with the name of its file."""
        for path in sorted(DEPLOY.rglob("*.yaml")):
            if path.name != "kustomization.yaml" and path.parent.name not in FOREIGN:
                yield from ((str(path.relative_to(DEPLOY)), manifest) for manifest in load(path))

    def pod(self) -> Manifest:
        """Give the template of bkscaler's pod."""
        return self.one("Deployment")["spec"]["template"]

    def container(self) -> Manifest:
        """Give bkscaler's container."""
        (container,) = self.pod()["spec"]["containers"]
        return container

    def environment(self) -> dict[str, str]:
        """Give the variables that it is given."""
        return {each["name"]: each["value"] for each in self.container()["env"]}


class SchemaTests(DeployCase):
    """What the API server would say."""

    if kubernetes_validate is None:
        skip = "kubernetes-validate is not installed"

    def test_valid(self) -> None:
        """Every manifest is valid in old and recent versions of Kubernetes, without unknown fields."""
        for version in VERSIONS:
            for name, manifest in self.all():
                try:
                    kubernetes_validate.validate(manifest, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    self.fail(f"{name}, Kubernetes {version}: {error}")

    def test_it_would_notice(self) -> None:
        """A misspelt field is found."""
        manifest = self.one("Deployment")
        manifest["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


class KubernetesTests(DeployCase):
    """deploy/kubernetes."""

    def test_files(self) -> None:
        """The folder holds the six manifests, in the order in which they are needed, and nothing else."""
        kinds = ("Namespace", "ServiceAccount", "Role", "RoleBinding", "Deployment", "Service")
        wanted = {f"{n:02}-{kind.lower()}.yaml": [kind] for n, kind in enumerate(kinds)}
        found = {p.name: [m["kind"] for m in load(p)] for p in sorted(KUBERNETES.iterdir())}
        self.assertEqual(found, wanted)

    def test_names(self) -> None:
        """Namespaces, container, image and Service are called as users of the original expect."""
        namespaces = {m["kind"]: identity(m)[1] for _, m in self.all_of_the_folder()}
        own = "buildkitd-scaler-system"
        self.assertEqual(
            namespaces,
            {
                "Namespace": "",
                "ServiceAccount": own,
                "Role": "default",
                "RoleBinding": "default",
                "Deployment": own,
                "Service": own,
            },
        )
        self.assertEqual(self.one("Namespace")["metadata"]["name"], own)
        container = self.container()
        self.assertEqual((container["name"], container["image"]), ("buildkitd-autoscaler", IMAGE))
        self.assertEqual(self.one("Service")["metadata"]["name"], "buildkitd-proxy-service")

    def all_of_the_folder(self) -> Iterator[tuple[str, Manifest]]:
        """List the manifests of this folder."""
        return ((name, manifest) for name, manifest in self.all() if name.startswith("kubernetes/"))

    def test_role(self) -> None:
        """The Role grants exactly the rights that are needed, about the one StatefulSet."""
        rules = self.one("Role")["rules"]
        found = {
            (group, resource, name, tuple(rule["verbs"]))
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for name in rule.get("resourceNames", [""])
        }
        self.assertEqual(found, RIGHTS)
        self.assertEqual((KUBERNETES / "02-role.yaml").read_text().count("resourceNames: [buildkitd]\n"), 2)

    def test_binding(self) -> None:
        """The Role is bound to the account that the pod runs under."""
        binding, account = self.one("RoleBinding"), self.one("ServiceAccount")
        self.assertEqual(binding["roleRef"]["name"], self.one("Role")["metadata"]["name"])
        (subject,) = binding["subjects"]
        self.assertEqual((subject["kind"], subject["namespace"], subject["name"]), identity(account))
        spec = self.pod()["spec"]
        self.assertEqual(spec["serviceAccountName"], subject["name"])
        self.assertTrue(spec["automountServiceAccountToken"])

    def test_settings(self) -> None:
        """Every variable is a setting's, is valid, and shows the setting's default."""
        known = {setting.env: setting for setting in SETTINGS}
        environment = self.environment()
        settings = read_settings({}, environment)
        self.assertEqual(settings, read_settings({}, {}))
        self.assertEqual({n: known[n].default for n in environment}, environment)
        self.assertGreaterEqual(
            environment.keys(),
            {
                "BUILDKITD_STATEFULSET_NAME",
                "BUILDKITD_STATEFULSET_NAMESPACE",
                "BUILDKITD_HEADLESS_SERVICE_NAME",
                "BUILDKITD_TARGET_PORT",
            },
        )
        self.assertEqual(settings.sts_namespace, self.one("Role")["metadata"]["namespace"])

    def test_ports(self) -> None:
        """Ports are those that bkscaler listens on; the Service leads to the proxy's alone."""
        settings = read_settings({}, self.environment())
        ports = {port["name"]: port["containerPort"] for port in self.container()["ports"]}
        self.assertIn(f"{ports['proxy']}", settings.listen_addr)
        self.assertIn(f"{ports['admin']}", settings.admin_addr or "")
        self.assertEqual(len(ports), 2)
        service = self.one("Service")["spec"]
        self.assertEqual([(p["port"], p["targetPort"]) for p in service["ports"]], [(8080, "proxy")])
        self.assertEqual(service["selector"], self.pod()["metadata"]["labels"])
        self.assertEqual(self.one("Deployment")["spec"]["selector"]["matchLabels"], service["selector"])

    def test_probes(self) -> None:
        """Each probe asks the admin port; a start under the limit, and a busy moment, are borne with."""
        container = self.container()
        paths = {}
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[kind]["httpGet"]
            self.assertEqual(asked["port"], "admin")
            self.assertGreaterEqual(container[kind]["timeoutSeconds"], 5)
            paths[kind] = asked["path"]
        self.assertEqual(list(paths.values()), ["/healthz", "/healthz", "/readyz"])
        startup = container["startupProbe"]
        self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 60)
        self.assertNotIn("lifecycle", container)

    def test_confined(self) -> None:
        """It runs as nobody in particular, on a read-only file system, without capabilities."""
        spec, own = self.pod()["spec"], self.container()["securityContext"]
        self.assertTrue(spec["securityContext"]["runAsNonRoot"])
        self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertTrue(own["readOnlyRootFilesystem"])
        self.assertFalse(own["allowPrivilegeEscalation"])
        self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
        user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert user is not None
        context = spec["securityContext"]
        self.assertEqual((context["runAsUser"], context["runAsGroup"]), (int(user[1]), int(user[2])))

    def test_resources(self) -> None:
        """Requests and limits are the published ones."""
        self.assertEqual(
            self.container()["resources"],
            {
                "requests": {"cpu": "50m", "memory": "32Mi"},
                "limits": {"cpu": "100m", "memory": "64Mi"},
            },
        )

    def test_one_at_a_time(self) -> None:
        """There is one, and the old one ends before a new one starts."""
        spec = self.one("Deployment")["spec"]
        self.assertEqual((spec["replicas"], spec["strategy"]), (1, {"type": "Recreate"}))

    def test_grace(self) -> None:
        """The pod is given the time to drain, to cut what is left, and to end."""
        drain_s = read_settings({}, self.environment()).drain_timeout_s
        grace_s = self.pod()["spec"]["terminationGracePeriodSeconds"]
        self.assertGreaterEqual(grace_s, drain_s + 2 * CUT_LIMIT_S)


class OptionalTests(DeployCase):
    """deploy/optional."""

    def test_selectors(self) -> None:
        """Each is in a namespace that is there, and selects bkscaler's pods, or the example's builder."""
        labels = {
            "buildkitd-scaler-system": self.pod()["metadata"]["labels"],
            "default": self.one("StatefulSet", DEPLOY / "examples/buildkitd")["spec"]["selector"][
                "matchLabels"
            ],
        }
        for path in sorted((DEPLOY / "optional").glob("*.yaml")):
            for manifest in load(path):
                spec = manifest["spec"]
                selector = spec.get("podSelector", spec.get("selector", {}))
                self.assertEqual(
                    selector.get("matchLabels", selector), labels[manifest["metadata"]["namespace"]], path
                )


class ExampleTests(DeployCase):
    """deploy/examples."""

    def builders(self) -> Iterator[tuple[str, Manifest, Manifest]]:
        """List the StatefulSets: file, manifest, container."""
        for name, manifest in self.all():
            if manifest["kind"] == "StatefulSet":
                (container,) = manifest["spec"]["template"]["spec"]["containers"]
                yield name, manifest, container

    def test_fit_the_settings(self) -> None:
        """Name, namespace, Service and port are those that bkscaler looks for by itself."""
        settings = read_settings({}, {})
        for name, manifest, container in self.builders():
            self.assertEqual(identity(manifest)[1:], (settings.sts_namespace, settings.sts_name), name)
            self.assertEqual(manifest["spec"]["serviceName"], settings.headless_service_name)
            self.assertEqual([p["containerPort"] for p in container["ports"]], [settings.target_port])

    def test_nobody_fights_over_replicas(self) -> None:
        """None of them says how many replicas there are."""
        self.assertEqual([name for name, m, _ in self.builders() if "replicas" in m["spec"]], [])
        self.assertEqual(len(list(self.builders())), 3)

    def test_quick_to_wake(self) -> None:
        """The readiness probe comes every two seconds or oftener; real builders are asked by gRPC."""
        for name, _, container in self.builders():
            probe = container["readinessProbe"]
            self.assertLessEqual(probe["periodSeconds"], 2, name)
            self.assertNotIn("initialDelaySeconds", probe)
            if container["name"] == "buildkitd":
                self.assertEqual(probe["grpc"], {"port": read_settings({}, {}).target_port})

    def test_cache_is_kept(self) -> None:
        """Real builders keep their cache on a claim that outlives each sleep, and are given time to end."""
        for name, manifest, container in self.builders():
            if container["name"] == "buildkitd":
                (claim,) = manifest["spec"]["volumeClaimTemplates"]
                self.assertEqual([m["name"] for m in container["volumeMounts"]], [claim["metadata"]["name"]])
                self.assertEqual(
                    manifest["spec"]["persistentVolumeClaimRetentionPolicy"]["whenScaled"], "Retain"
                )
                grace_s = manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
                self.assertTrue(20 <= grace_s <= 120, name)

    def test_services(self) -> None:
        """The headless Service of each selects its pods."""
        for name, manifest, _ in self.builders():
            folder = (DEPLOY / name).parent
            if not any(m["kind"] == "Service" for p in folder.glob("*.yaml") for m in load(p)):
                folder = folder.parent
            service = self.one("Service", folder)
            self.assertEqual(service["metadata"]["name"], manifest["spec"]["serviceName"])
            self.assertEqual(service["spec"]["clusterIP"], "None")
            self.assertEqual(service["spec"]["selector"], manifest["spec"]["template"]["metadata"]["labels"])


class KustomizationTests(DeployCase):
    """deploy/kustomization.yaml, rendered."""

    if KUBECTL is None:
        skip = "there is no kubectl on PATH"

    def rendered(self, folder: Path) -> dict[tuple[str, str, str], Manifest]:
        """Render a folder."""
        result = subprocess.run(
            [KUBECTL or "", "kustomize", str(folder)],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return {identity(each): each for each in yaml.safe_load_all(result.stdout)}

    def test_same(self) -> None:
        """As it is, it gives exactly the manifests of deploy/kubernetes."""
        plain = {identity(m): m for name, m in self.all() if name.startswith("kubernetes/")}
        self.assertEqual(self.rendered(DEPLOY), plain)

    def test_other_names(self) -> None:
        """With its values changed, no manifest holds an old name where a new one is meant."""
        found = self.copied(
            ("- namespace=buildkitd-scaler-system", "- namespace=scaling"),
            ("- statefulset=buildkitd", "- statefulset=workshop"),
            ("- statefulset-namespace=default", "- statefulset-namespace=builders"),
            ("- headless-service=buildkitd-headless", "- headless-service=workshop-pods"),
            ("newName: your-repo/buildkitd-autoscaler", "newName: registry.example/bkscaler"),
            ("newTag: your-tag", "newTag: v1.2.3"),
        )
        self.check_other_names(found)

    def copied(self, *changes: tuple[str, str], more: str = "") -> dict[tuple[str, str, str], Manifest]:
        """Render a copy of the folder whose kustomization has some lines changed, and some more."""
        folder = Path(tempfile.mkdtemp(prefix="bkscaler-test-"))
        self.addCleanup(shutil.rmtree, folder)
        shutil.copytree(KUBERNETES, folder / "kubernetes")
        text = (DEPLOY / "kustomization.yaml").read_text()
        for old, new in changes:
            self.assertEqual(text.count(old + "\n"), 1, old)
            text = text.replace(old + "\n", new + "\n")
        (folder / "kustomization.yaml").write_text(text + more)
        return self.rendered(folder)

    def test_second_builder(self) -> None:
        """A copy made as docs/operations.md says shares no object with the first and is about its own set."""
        told = (ROOT / "docs/operations.md").read_text().split("## Several builders")[1].split("## ")[0]
        values = re.findall(r"^    - (([a-z-]+)=\S+)$", told, re.MULTILINE)
        suffix = re.findall(r"`(nameSuffix: (\S+))`", told)
        self.assertEqual((len(values), len(suffix)), (4, 1))
        lines = (DEPLOY / "kustomization.yaml").read_text().splitlines()
        old = {
            key: line.strip() for _, key in values for line in lines if line.strip().startswith(f"- {key}=")
        }
        second = self.copied(*((old[key], f"- {new}") for new, key in values), more=suffix[0][0] + "\n")
        self.assertEqual(set(second) & set(self.rendered(DEPLOY)), set())
        objects = {kind: manifest for (kind, _, _), manifest in second.items()}
        self.assertEqual(len(objects), len(second))
        own, name, new = suffix[0][1], "buildkitd-autoscaler", dict(v.split("=") for v, _ in values)
        rules = objects["Role"]["rules"]
        self.assertEqual([r.get("resourceNames") for r in rules[:2]], [[new["statefulset"]]] * 2)
        self.assertEqual(objects["RoleBinding"]["roleRef"]["name"], name + own)
        (subject,) = objects["RoleBinding"]["subjects"]
        self.assertEqual((subject["namespace"], subject["name"]), (new["namespace"], name + own))
        pod = objects["Deployment"]["spec"]["template"]["spec"]
        self.assertEqual((pod["serviceAccountName"], pod["containers"][0]["name"]), (name + own, name))
        settings = read_settings({}, {each["name"]: each["value"] for each in pod["containers"][0]["env"]})
        self.assertEqual(
            (settings.sts_name, settings.sts_namespace, settings.headless_service_name),
            (new["statefulset"], new["statefulset-namespace"], new["headless-service"]),
        )
        for kind in ("ServiceAccount", "Deployment", "Service"):
            self.assertEqual(objects[kind]["metadata"]["namespace"], new["namespace"])

    def check_other_names(self, found: dict[tuple[str, str, str], Manifest]) -> None:
        """Look at every place where a name must have changed."""
        name = "buildkitd-autoscaler"
        self.assertEqual(
            set(found),
            {
                ("Namespace", "", "scaling"),
                ("ServiceAccount", "scaling", name),
                ("Role", "builders", name),
                ("RoleBinding", "builders", name),
                ("Deployment", "scaling", name),
                ("Service", "scaling", "buildkitd-proxy-service"),
            },
        )
        rules = found["Role", "builders", name]["rules"]
        self.assertEqual([r.get("resourceNames") for r in rules], [["workshop"], ["workshop"], None, None])
        self.assertEqual(found["RoleBinding", "builders", name]["subjects"][0]["namespace"], "scaling")
        (container,) = found["Deployment", "scaling", name]["spec"]["template"]["spec"]["containers"]
        self.assertEqual(container["image"], "registry.example/bkscaler:v1.2.3")
        settings = read_settings({}, {each["name"]: each["value"] for each in container["env"]})
        self.assertEqual(
            (settings.sts_name, settings.sts_namespace, settings.headless_service_name),
            ("workshop", "builders", "workshop-pods"),
        )
