"""Tests of watches and lists where time or trouble matters; the rest is in the contract."""

from __future__ import annotations

from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from bkscaler.sandbox.failures import ApiFailure
from bkscaler.sandbox.kinds import CONFIGMAPS
from bkscaler.sandbox.lists import ListOptions, list_objects
from bkscaler.sandbox.state import State
from bkscaler.sandbox.watches import BOOKMARK_S
from bkscaler.sandbox.watchoptions import WatchOptions, check_watch
from bkscaler.test.sandbox_support import World

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json"


class WatchTests(SynchronousTestCase):
    """One open watch on a clock."""

    def setUp(self):
        self.world = World()
        self.state = self.world.cluster.state
        self.addCleanup(lambda: self.assertEqual(self.world.stop(), []))
        self.maps = f"{self.world.core}/configmaps"

    def put(self, name, namespace="builds", **more):
        """Write a ConfigMap."""
        self.state.put("configmaps", {"metadata": {"name": name, "namespace": namespace}, **more})

    def types(self, watch):
        """Give the types of the lines."""
        return [line["type"] for line in watch.lines]

    def test_bookmarks(self):
        """Bookmarks come about every minute and once more before the end, with the version of now."""
        self.world.pump(0.1)
        start_s = self.world.clock.seconds()
        version = self.state.version
        watch = self.world.watch(
            f"{self.world.sets}?allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion={version}"
        )
        times = []
        for _ in range(151):
            before = len(watch.lines)
            self.put("x", data={"n": str(self.world.clock.seconds())})
            self.world.clock.advance(1)
            self.world.pump(0)
            times += [round(self.world.clock.seconds() - start_s)] * (len(watch.lines) - before)
        self.assertEqual(self.types(watch), ["BOOKMARK"] * 3)
        self.assertEqual(times, [BOOKMARK_S, 2 * BOOKMARK_S, 148])
        self.assertGreater(int(watch.lines[-1]["object"]["metadata"]["resourceVersion"]), version + 100)
        self.assertTrue(watch.ended)

    def test_no_bookmarks_of_the_past(self):
        """A watch from a version that has not come yet is silent: bookmarks would take it back."""
        query = f"allowWatchBookmarks=true&timeoutSeconds=150&resourceVersion={self.state.version + 100}"
        watch = self.world.watch(f"{self.maps}?{query}")
        self.world.clock.advance(BOOKMARK_S)
        self.world.clock.advance(150 - BOOKMARK_S)
        self.world.pump(0)
        self.assertEqual((self.types(watch), watch.ended), ([], True))

    def test_no_bookmarks_unless_asked_for(self):
        """An idle watch sends nothing at all."""
        watch = self.world.watch(f"{self.maps}?timeoutSeconds=300&resourceVersion={self.state.version}")
        self.world.clock.advance(299)
        self.world.pump(0)
        self.assertEqual((watch.data, watch.ended), (b"", False))

    def test_without_timeout(self):
        """A watch that names no timeout is ended by the server after half an hour to an hour."""
        watch = self.world.watch(self.maps)
        self.world.clock.advance(1799)
        self.world.pump(0)
        self.assertFalse(watch.ended)
        self.world.clock.advance(1802)
        self.world.pump(0)
        self.assertTrue(watch.ended)

    def test_client_leaves(self):
        """When the client leaves, nothing of its watch is left."""
        stopped = World()
        before = len(stopped.clock.getDelayedCalls())
        stopped.watch(f"{self.maps}?allowWatchBookmarks=true")
        (stream,) = stopped.cluster.root.watches._streams
        stream._request.connectionLost(ConnectionError())
        self.assertEqual(len(stopped.cluster.root.watches), 0)
        self.assertEqual(len(stopped.clock.getDelayedCalls()), before)
        self.assertEqual(stopped.stop(), [])

    def test_stopping_ends_watches(self):
        """When the sandbox stops, its watches end cleanly."""
        world = World()
        watch = world.watch(self.maps)
        self.assertEqual(len(world.cluster.root.watches), 1)
        world.stop()
        world.pump(0)
        self.assertTrue(watch.ended)

    def test_trouble(self):
        """A server in trouble may say so in a line and end the watch."""
        watch = self.world.watch(f"{self.maps}?resourceVersion={self.state.version}")
        (stream,) = self.world.cluster.root.watches._streams
        stream.fail(ApiFailure(500, "InternalError", "trouble"))
        stream.fail(ApiFailure(500, "InternalError", "ignored"))
        self.world.pump(0)
        self.assertEqual([line["object"]["code"] for line in watch.lines], [500])
        self.assertTrue(watch.ended)

    def test_compaction(self):
        """After a compaction an earlier version is gone, and an open watch goes on."""
        version = self.state.version
        watch = self.world.watch(f"{self.maps}?resourceVersion={version}")
        self.put("a")
        self.state.compact()
        late = self.world.watch(f"{self.maps}?resourceVersion={version}")
        self.put("b")
        self.world.pump(0)
        self.assertEqual((self.types(watch), self.types(late)), (["ADDED", "ADDED"], ["ERROR"]))

    def test_namespaces(self):
        """A watch of one namespace does not hear of another; a watch of all hears of both."""
        one, every = self.world.watch(self.maps), self.world.watch("/api/v1/configmaps")
        self.put("a")
        self.put("b", namespace="default")
        self.world.pump(0)
        self.assertEqual((len(one.lines), len(every.lines)), (1, 2))

    def test_tables(self):
        """A watch in Tables has the columns in its first line only; a bookmark is an empty Table."""
        query = "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
        watch = self.world.call("GET", f"{self.world.sets}?watch=1&{query}", Accept=TABLE)
        self.world.patch_scale(1)
        self.world.pump(0)
        tables = [line["object"] for line in watch.lines]
        self.assertEqual(self.types(watch), ["ADDED", "BOOKMARK", "MODIFIED"])
        self.assertEqual([table["kind"] for table in tables], ["Table"] * 3)
        self.assertEqual([bool(table["columnDefinitions"]) for table in tables], [True, False, False])
        self.assertEqual([len(table["rows"]) for table in tables], [1, 0, 1])

    def test_metadata_only(self):
        """A client may ask for the metadata only, in a watch and in a list."""
        self.put("a", data={"k": "v"})
        watch = self.world.call("GET", f"{self.maps}?watch=1", Accept=METADATA)
        self.assertEqual(watch.lines[0]["object"]["kind"], "PartialObjectMetadata")
        listing = self.world.call(
            "GET", self.maps, Accept=METADATA.replace("Metadata;", "MetadataList;")
        ).body
        self.assertEqual(listing["kind"], "PartialObjectMetadataList")
        self.assertNotIn("data", listing["items"][0])

    def test_a_change_is_sent_at_once(self):
        """The line of a change is there before any time has passed."""
        watch = self.world.watch(f"{self.world.sets}?resourceVersion={self.state.version}")
        self.world.patch_scale(1)
        self.assertEqual(self.types(watch), ["MODIFIED"])

    def test_options_that_go_together(self):
        """A bad version and an initial-events request without its match are refused."""
        for options, code in (({"version": "x"}, 500), ({"initial_events": True}, 422)):
            wanted = WatchOptions(kind=CONFIGMAPS, timeout_s=1, **options)
            self.assertEqual(self.assertRaises(ApiFailure, check_watch, wanted).code, code)


class ListTests(SynchronousTestCase):
    """Pages and versions."""

    def setUp(self):
        self.state = State()
        for namespace, name in (("a", "y"), ("a-b", "x"), ("a", "x"), ("b", "x")):
            self.state.put("configmaps", {"metadata": {"name": name, "namespace": namespace}})

    def page(self, **options):
        """Give the names on a page, and its metadata."""
        page = list_objects(self.state, CONFIGMAPS, ListOptions(**options), lambda _: True)
        names = [f"{i['metadata']['namespace']}/{i['metadata']['name']}" for i in page["items"]]
        return names, page["metadata"]

    def test_pages_over_namespaces(self):
        """Pages over all namespaces leave nothing out and give nothing twice."""
        names, token = [], ""
        for _ in range(4):
            page, meta = self.page(limit=1, token=token)
            names += page
            token = meta.get("continue", "")
        self.assertEqual(names, self.page()[0])
        self.assertEqual((len(set(names)), token), (4, ""))

    def test_remaining(self):
        """A page says how many are left."""
        self.assertEqual(self.page(limit=3)[1]["remainingItemCount"], 1)

    def test_expired_token(self):
        """A token from before a compaction is gone, and the answer has one to go on with."""
        token = self.page(limit=1)[1]["continue"]
        self.state.put("configmaps", {"metadata": {"name": "z", "namespace": "z"}})
        self.state.compact()
        failure = self.assertRaises(ApiFailure, self.page, limit=1, token=token)
        self.assertEqual(failure.code, 410)
        names, _ = self.page(token=failure.body()["metadata"]["continue"])
        self.assertEqual(len(names), 4)

    def test_broken_token(self):
        """A token that cannot be read is a bad request."""
        for token in ("x", "e30", quote("ä")):
            self.assertEqual(self.assertRaises(ApiFailure, self.page, token=token).code, 400)
