#!/usr/bin/env python3
"""Drives the control plane of build/sandboxd over the wire: what outlives it, volumes, pools,
quotas. Reports in TAP; the last line is "N passed, N failed"."""

import contextlib
import http.client
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from urllib.parse import quote, urlsplit

from test_sandboxd import TIME, UUID, copy_program
from daemon import (SANDBOXD, SANITIZED, Sandbox, Server, WithOrphans, WithServer, alive,
                    descendants, groups, main, stat_of, wait_until)
import wire

KINDS = "volumes", "templates", "pools"


# ---- helpers ----

def agents(server):
    """The processes of all sandboxes, as the host sees them."""
    found = []
    for pid in descendants(server.process.pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if words[1:] == [b"--agent", b""] and (stat_of(pid) or "ZZ")[1] not in "ZX":
                found.append(pid)
    return found


def warm(server, name):
    return server.call("GET", f"/pools/{name}").json["ready_replicas"]


class WithOwnServers(WithServer):
    """Tests that start servers themselves, on one data directory."""

    @classmethod
    def setUpClass(cls):
        pass

    @classmethod
    def tearDownClass(cls):
        pass

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.data = Path(directory.name, "data")

    def start(self, *options, **more):
        return Server("--data", str(self.data), "--no-isolation", *options, **more)

    def post(self, server, path, **document):
        reply = server.call("POST", path, document)
        self.assertEqual(reply.status, 201, reply)
        return reply.json


def everything(server):
    """All that is stored, as the server tells it."""
    found = {}
    for kind in KINDS:
        items = server.call("GET", f"/{kind}").json[kind]
        for item in items:
            item.pop("ready_replicas", None)
        found[kind] = items
    return found


# ---- volumes ----

class Volumes(WithServer):
    def test_a_volume_can_be_made_got_listed_changed_and_deleted(self):
        reply = self.server.call("POST", "/volumes", {"name": "a", "size": "1Gi", "labels": {},
                                                      "wait_for_ready": True, "timeout": 60})
        self.assertEqual(reply.status, 201)
        made = reply.json
        self.assertRegex(made["id"], f"^{UUID}$")
        self.assertRegex(made["created_at"], f"^{TIME}$")
        self.assertEqual({**made, "id": 0, "created_at": 0, "updated_at": 0},
                         {"id": 0, "name": "a", "size": "1Gi", "storage_class": "local",
                          "created_at": 0, "updated_at": 0})
        self.assertEqual(self.server.call("GET", "/volumes/a").json, made)
        self.assertIn(made, self.server.call("GET", "/volumes").json["volumes"])
        changed = self.server.call("PATCH", "/volumes/a", {"name": "b", "size": "2Gi"})
        self.assertEqual((changed.status, changed.json["name"], changed.json["size"]),
                         (200, "b", "2Gi"))
        self.assertEqual((changed.json["id"], changed.json["created_at"]),
                         (made["id"], made["created_at"]))
        self.assertGreater(changed.json["updated_at"], made["updated_at"])
        self.assertEqual(self.server.call("DELETE", "/volumes/b").status, 204)
        for name in "a", "b":
            for method in "GET", "PATCH", "DELETE":
                self.expect_error(self.server.call(method, f"/volumes/{name}"), 404,
                                  "VolumeNotFound", name)

    def test_a_change_of_nothing_gives_the_volume_as_it_is(self):
        made = self.server.call("POST", "/volumes", {"name": "still", "size": "1Gi"}).json
        for document in {}, {"size": None}, {"name": "still"}, {"size": "1Gi"}, \
                {"size": "1024Mi"}, {"unknown": 1}:
            reply = self.server.call("PATCH", "/volumes/still", document)
            self.assertEqual((reply.status, reply.json), (200, made), document)

    def test_sizes_only_grow(self):
        self.server.call("POST", "/volumes", {"name": "grows", "size": "1Gi"})
        for size in "1G", "1023Mi", "1":
            self.expect_error(self.server.call("PATCH", "/volumes/grows",
                                               {"name": "other", "size": size}),
                              400, "VolumeResize", "1Gi")
        self.assertEqual(self.server.call("GET", "/volumes/grows").json["size"], "1Gi")
        self.assertEqual(self.server.call("PATCH", "/volumes/grows",
                                          {"size": "1025Mi"}).json["size"], "1025Mi")

    def test_a_volume_is_checked(self):
        good = {"name": "bad", "size": "1Gi"}
        for change, loc in (
                ({"name": None}, "name"), ({"name": ""}, "name"), ({"name": 5}, "name"),
                ({"name": "x" * 1025}, "name"), ({"size": None}, "size"), ({"size": 1}, "size"),
                ({"size": "0"}, "size"), ({"size": "-1Gi"}, "size"), ({"size": "1GB"}, "size"),
                ({"size": "1001T"}, "size"), ({"timeout": 4}, "timeout"),
                ({"timeout": 301}, "timeout"), ({"timeout": "60"}, "timeout"),
                ({"wait_for_ready": 1}, "wait_for_ready")):
            with self.subTest(change=change):
                self.expect_problem(self.server.call("POST", "/volumes", {**good, **change}),
                                    "body", loc)
        self.expect_problem(self.server.call("POST", "/volumes", body=b"[]"), "body", "name")
        self.assertEqual(self.server.call("GET", "/volumes/bad").status, 404)
        self.server.call("POST", "/volumes", {"name": "checked", "size": "1Gi"})
        for document, loc in (({"name": ""}, "name"), ({"name": 1}, "name"),
                              ({"size": "big"}, "size"), ({"size": 2}, "size")):
            self.expect_problem(self.server.call("PATCH", "/volumes/checked", document),
                                "body", loc)

    def test_names_of_volumes_are_unique(self):
        for name in "u1", "u2":
            self.server.call("POST", "/volumes", {"name": name, "size": "1"})
        self.expect_error(self.server.call("POST", "/volumes", {"name": "u1", "size": "1"}), 409,
                          "AlreadyExists", "Volume 'u1'")
        self.expect_error(self.server.call("PATCH", "/volumes/u1", {"name": "u2", "size": "2"}),
                          409, "NameConflict", "Volume 'u2'")
        self.assertEqual(self.server.call("GET", "/volumes/u1").json["size"], "1")

    def test_the_paths_of_mounts_are_checked(self):
        for name in "m1", "m2":
            self.server.call("POST", "/volumes", {"name": name, "size": "1Gi"})
        good = {"name": "bad", "image": "i"}
        for mounts, *loc in (
                ({}, ), ([None], 0, "volume_name"), ([{"volume_name": "m1"}], 0, "mount_path"),
                ([("none", "/data")], 0, "volume_name"), ([("", "/data")], 0, "volume_name"),
                ([("m1", "/a"), ("none", "/b")], 1, "volume_name"),
                ([("m1", "/a"), ("m2", "/a")], 1, "mount_path"),
                ([("m1", "/a"), ("m2", "//a/")], 1, "mount_path"),
                ([("m1", "/a"), ("m2", "/a/b")], 1, "mount_path"),
                ([("m1", "/a/b"), ("m2", "/a")], 1, "mount_path"),
                ([("m1", f"/{i}") for i in range(33)], ),
                *(([("m1", path)], 0, "mount_path") for path in (
                    "", "data", "./data", "/", "//", "/a/../b", "/a/./b", "/..", "/proc",
                    "/proc/x", "/dev/shm/x", "/sys", "/home", "/home/", "/usr/local/x", "//usr//local", "/bin/",
                    "/sbin/x", "/lib/x", "/lib64", "/etc/x", "/.sandboxd", "/a\u0007",
                    "/" + "x" * 256, "/" + "x/" * 600))):
            if isinstance(mounts, list):
                mounts = [{"volume_name": mount[0], "mount_path": mount[1]}
                          if isinstance(mount, tuple) else mount for mount in mounts]
            with self.subTest(mounts=mounts):
                self.expect_problem(
                    self.server.call("POST", "/templates", {**good, "volume_mounts": mounts}),
                    "body", "volume_mounts", *loc)
        self.assertEqual(self.server.call("GET", "/templates/bad").status, 404)
        fine = "/data", "/library", "/home/user/x", "/ab", "/a b/..c/.d", "/tmp/v"
        reply = self.server.call("POST", "/templates", {**good, "name": "fine", "volume_mounts": [
            {"volume_name": "m1", "mount_path": f"/{path}/"} for path in fine]})
        self.assertEqual(reply.status, 201, reply)
        self.assertEqual(tuple(mount["mount_path"] for mount in reply.json["volume_mounts"]), fine)

    def test_a_template_sees_its_volume_by_its_new_name(self):
        self.server.call("POST", "/volumes", {"name": "before", "size": "1Gi"})
        mounts = [{"volume_name": "before", "mount_path": "/data"}]
        reply = self.server.call("POST", "/templates", {"name": "t", "image": "i",
                                                        "volume_mounts": mounts})
        self.assertEqual([mounts[0] | mount for mount in reply.json["volume_mounts"]],
                         reply.json["volume_mounts"])
        self.server.call("PATCH", "/volumes/before", {"name": "after"})
        self.assertEqual(self.server.call("GET", "/templates/t").json["volume_mounts"][0][
            "volume_name"], "after")
        self.expect_error(self.server.call("DELETE", "/volumes/after"), 409, "ResourceInUse",
                          "in use by a template")
        self.assertEqual(self.server.call("DELETE", "/templates/t").status, 204)
        self.assertEqual(self.server.call("DELETE", "/volumes/after").status, 204)


class Mounts(WithOwnServers):
    def start(self, *options, **more):
        return Server("--data", str(self.data), *options, **more)

    def template(self, server, name, *mounts):
        return self.post(server, "/templates", name=name, image="i", volume_mounts=[
            {"volume_name": volume, "mount_path": path} for volume, path in mounts])

    def test_what_is_in_a_volume_outlives_sandboxes_and_restarts(self):
        with self.start() as server:
            for name in "v", "w":
                self.post(server, "/volumes", name=name, size="1Gi")
            self.template(server, "t", ("v", "/data"), ("w", "/home/user/w"))
            self.template(server, "u", ("v", "/other"))
            with server.create(template_name="t") as box:
                self.assertEqual(box.run("echo 1 > /data/x && mkdir -p w/a/b && echo 2 > w/a/b/y "
                                         "&& ln -s /etc/passwd /data/link && stat -c %u /data/x"),
                                 (0, "1000\n", ""))
                with server.create(template_name="u") as other:
                    self.assertEqual(other.output("cat /other/x; echo 3 >> /other/x"), "1\n")
                self.assertEqual(box.output("cat /data/x"), "1\n3\n")
            server.call("PATCH", "/volumes/v", {"name": "v2", "size": "2Gi"})
            with server.create(template_name="t") as box:
                self.assertEqual(box.output("cat /data/x w/a/b/y"), "1\n3\n2\n")
            server.create(template_name="t")
            before = everything(server)
            server.stop(signal.SIGKILL)
        with self.start() as server:
            self.assertEqual(everything(server), before)
            with server.create(template_name="t") as box:
                self.assertEqual(box.output("cat /data/x w/a/b/y; readlink /data/link; "
                                            "echo 4 > /data/x"), "1\n3\n2\n/etc/passwd\n")
            with server.create(template_name="u") as box:
                self.assertEqual(box.output("cat /other/x"), "4\n")
            ids = {item["id"] for item in before["volumes"]}
            self.assertEqual({path.name for path in (self.data / "volumes").iterdir()
                              if path.is_dir()}, ids)
            for name in "t", "u":
                self.assertEqual(server.call("DELETE", f"/templates/{name}").status, 204)
            for name in "v2", "w":
                self.assertEqual(server.call("DELETE", f"/volumes/{name}").status, 204)
            self.assertTrue(wait_until(lambda: not os.listdir(self.data / "volumes")))

    def test_a_sandbox_cannot_leave_its_volume(self):
        with self.start() as server:
            made = self.post(server, "/volumes", name="v", size="1Gi")
            content = self.data / "volumes" / made["id"] / "content"
            self.assertEqual(content.parent.stat().st_mode & 0o777, 0o700)
            if os.getuid() == 0:
                self.assertNotEqual(content.stat().st_uid, 0)
            self.template(server, "t", ("v", "/data"))
            with server.create(template_name="t") as box:
                # What lies above belongs to the server.
                self.assertEqual(box.run("ls -A /data; ls /data/.. | grep -c content")[1], "0\n")
                self.assertNotEqual(box.run(f"ls {self.data}")[0], 0)

    def test_a_volume_is_not_deleted_while_a_sandbox_still_has_it(self):
        with self.start() as server:
            self.post(server, "/volumes", name="v", size="1Gi")
            self.template(server, "t", ("v", "/data"))
            box = server.create(template_name="t")
            self.expect_error(server.call("DELETE", "/templates/t"), 409, "ResourceInUse")
            os.kill(box.agent(), signal.SIGSTOP)  # so that it takes its time to end
            ends = threading.Thread(target=server.call, args=("DELETE", f"/boxes/{box.name}"))
            ends.start()
            self.assertTrue(wait_until(lambda: server.call(
                "GET", f"/boxes/{box.name}").status == 404))
            self.assertEqual(server.call("DELETE", "/templates/t").status, 204)
            self.expect_error(server.call("DELETE", "/volumes/v"), 409, "ResourceInUse",
                              "still ends")
            ends.join()
            self.assertEqual(server.call("DELETE", "/volumes/v").status, 204)

    def test_a_mount_that_the_image_has_no_place_for_is_refused_for_good(self):
        with tempfile.TemporaryDirectory() as name:
            image = Path(name)
            (image / "opt" / "there").mkdir(parents=True)
            (image / "opt" / "file").write_text("")
            (image / "link").symlink_to("/opt")
            with self.start("--image", f"i={image}", "--limits", "none") as server:
                self.post(server, "/volumes", name="v", size="1Gi")
                for i, (path, why) in enumerate((
                        ("/opt/missing", "read-only"), ("/opt/file", "is no directory"),
                        ("/opt/file/x", "is no directory"), ("/link/x", "/link is a symbolic link"),
                        ("/var/run/x", "/var/run is a symbolic link"))):
                    self.template(server, f"t{i}", ("v", path))
                    self.expect_error(server.call("POST", "/boxes", {"template_name": f"t{i}"}),
                                      422, "SandboxConfig", f"mounted at {path}: .*{why}")
                    server.call("DELETE", f"/templates/t{i}")
                self.assertEqual(server.call("GET", "/boxes").json["sandboxes"], [])
                self.assertEqual(server.call("DELETE", "/volumes/v").status, 204)
                self.assertTrue(wait_until(lambda: not os.listdir(self.data / "sandboxes")))

    def test_without_isolation_volumes_cannot_be_mounted(self):
        with self.start("--no-isolation") as server:
            self.post(server, "/volumes", name="v", size="1Gi")
            self.template(server, "t", ("v", "/data"))
            reply = server.call("POST", "/boxes", {"template_name": "t", "wait_for_ready": True})
            self.expect_error(reply, 422, "SandboxConfig", "mounted at /data:.*isolation")
            self.assertEqual(server.call("GET", "/boxes").json["sandboxes"], [])
            later = self.post(server, "/boxes", template_name="t", wait_for_ready=False)
            self.assertEqual(later["status"], "provisioning")
            failed = server.call("GET", f"/boxes/{later['name']}/status").json
            self.assertEqual(failed["status"], "failed")
            self.assertIn("mounted at /data", failed["status_message"])
            server.call("DELETE", f"/boxes/{later['name']}")
            self.assertEqual(server.call("DELETE", "/templates/t").status, 204)
            self.assertEqual(server.call("DELETE", "/volumes/v").status, 204)


# ---- pools ----

class Pools(WithServer):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.TemporaryDirectory()
        broken, cls.fading = (Path(cls.directory.name, name) for name in ("broken", "fading"))
        broken.mkdir()
        copy_program(str(SANDBOXD), cls.fading)  # for its libraries, where it is not static
        cls.server = Server("--image", "system=/", "--image", f"broken={broken}",
                            "--image", f"fading={cls.fading}")
        broken.rmdir()  # from now on, no sandbox of this image can start
        for name, image in ("t", "system"), ("broken", "broken"), ("missing", "missing"), \
                ("cold", "system"), ("fading", "fading"):
            cls.server.call("POST", "/templates", {"name": name, "image": image})

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()
        cls.directory.cleanup()

    def tearDown(self):
        for kind in "pools", "boxes":
            items = self.server.call("GET", f"/{kind}").json
            for item in next(iter(items.values())):
                self.server.call("DELETE", f"/{kind}/{quote(item['name'], safe='')}")
        self.assertTrue(wait_until(lambda: not agents(self.server)))

    def pool(self, name="p", replicas=2, **more):
        reply = self.server.call("POST", "/pools", {"name": name, "template_name": "t",
                                                    "replicas": replicas, "wait_for_ready": True,
                                                    "timeout": 60, **more}, timeout=90)
        self.assertEqual(reply.status, 201, reply)
        return reply.json

    def expect_warm(self, name, count):
        self.assertTrue(wait_until(lambda: warm(self.server, name) == count and
                                   len(agents(self.server)) >= count, 20),
                        self.server.call("GET", f"/pools/{name}"))

    def test_a_pool_can_be_made_got_listed_changed_and_deleted(self):
        made = self.pool(labels={})
        self.assertRegex(made["id"], f"^{UUID}$")
        template = self.server.call("GET", "/templates/t").json
        self.assertEqual({**made, "id": 0, "created_at": 0, "updated_at": 0},
                         {"id": 0, "name": "p", "template_name": "t", "replicas": 2,
                          "template_id": template["id"], "ready_replicas": 2, "created_at": 0,
                          "updated_at": 0})
        self.assertEqual(self.server.call("GET", "/pools/p").json, made)
        self.assertEqual(self.server.call("GET", "/pools").json["pools"], [made])
        for nothing in {}, {"name": "p"}, {"replicas": 2}, {"replicas": None}, {"unknown": 1}:
            reply = self.server.call("PATCH", "/pools/p", nothing)
            self.assertEqual((reply.status, reply.json), (200, made))
        changed = self.server.call("PATCH", "/pools/p", {"name": "q", "replicas": 1})
        self.assertEqual((changed.status, changed.json["name"], changed.json["replicas"]),
                         (200, "q", 1))
        self.assertEqual(self.server.call("DELETE", "/pools/q").status, 204)
        for method in "GET", "PATCH", "DELETE":
            self.expect_error(self.server.call(method, "/pools/q"), 404, "PoolNotFound")

    def test_a_pool_is_checked(self):
        good = {"name": "bad", "template_name": "t", "replicas": 1, "wait_for_ready": False}
        for change, loc in (
                ({"name": None}, "name"), ({"name": ""}, "name"),
                ({"template_name": None}, "template_name"), ({"template_name": 1}, "template_name"),
                ({"replicas": None}, "replicas"), ({"replicas": 0}, "replicas"),
                ({"replicas": 101}, "replicas"), ({"replicas": -1}, "replicas"),
                ({"replicas": 1.5}, "replicas"), ({"replicas": "1"}, "replicas"),
                ({"replicas": 1e300}, "replicas"), ({"timeout": 9}, "timeout"),
                ({"timeout": 601}, "timeout"), ({"wait_for_ready": "no"}, "wait_for_ready")):
            with self.subTest(change=change):
                self.expect_problem(self.server.call("POST", "/pools", {**good, **change}),
                                    "body", loc)
        self.expect_error(self.server.call("POST", "/pools", {**good, "template_name": "none"}),
                          400, "TemplateNotFound", "none")
        self.server.call("POST", "/volumes", {"name": "v", "size": "1Gi"})
        self.server.call("POST", "/templates", {"name": "mounts", "image": "system",
                                                "volume_mounts": [{"volume_name": "v",
                                                                   "mount_path": "/data"}]})
        self.expect_error(self.server.call("POST", "/pools", {**good, "template_name": "mounts"}),
                          400, "ValidationError", "volumes")
        for wait in False, True:
            self.expect_error(self.server.call("POST", "/pools", {
                **good, "template_name": "missing", "wait_for_ready": wait}), 422, "ImagePull",
                "missing")
        self.assertEqual(self.server.call("GET", "/pools").json, {"pools": []})
        for name in "p1", "p2":
            self.pool(name, 1, wait_for_ready=False)
        self.expect_error(self.server.call("POST", "/pools", {**good, "name": "p1"}), 409,
                          "AlreadyExists", "Pool 'p1'")
        self.expect_error(self.server.call("PATCH", "/pools/p1", {"name": "p2", "replicas": 5}),
                          409, "NameConflict", "Pool 'p2'")
        self.assertEqual(self.server.call("GET", "/pools/p1").json["replicas"], 1)
        for document, loc in (({"replicas": 101}, "replicas"), ({"replicas": -1}, "replicas"),
                              ({"replicas": True}, "replicas"), ({"name": []}, "name")):
            self.expect_problem(self.server.call("PATCH", "/pools/p1", document), "body", loc)

    def test_a_template_of_a_pool_cannot_be_deleted(self):
        self.pool(replicas=1, wait_for_ready=False)
        self.expect_error(self.server.call("DELETE", "/templates/t"), 409, "ResourceInUse",
                          "1 pool$")
        self.server.call("PATCH", "/templates/t", {"name": "t2"})
        self.assertEqual(self.server.call("GET", "/pools/p").json["template_name"], "t2")
        self.server.call("PATCH", "/templates/t2", {"name": "t"})

    def test_a_sandbox_is_handed_over_and_replaced(self):
        self.pool(replicas=2)
        self.assertEqual(self.server.call("GET", "/boxes").json, {"sandboxes": []})
        self.assertEqual(len(agents(self.server)), 2)
        ids = set()
        for wait in True, False:
            before = agents(self.server)
            reply = self.server.call("POST", "/boxes", {"template_name": "t", "name": f"box{wait}",
                                                        "wait_for_ready": wait})
            self.assertEqual((reply.status, reply.json["name"], reply.json["status"],
                              reply.json["template_name"]), (201, f"box{wait}", "ready", "t"))
            self.assertGreater(reply.json["created_at"],
                               self.server.call("GET", "/pools/p").json["updated_at"])
            ids.add(reply.json["id"])
            box = Sandbox(self.server, reply.json)
            self.assertEqual(box.output("echo works > /tmp/x; cat /tmp/x"), "works\n")
            self.expect_warm("p", 2)
            self.assertLess(set(before), set(agents(self.server)))
        self.expect_error(self.server.call("POST", "/boxes", {"template_name": "t",
                                                              "name": "boxTrue"}), 409,
                          "AlreadyExists")
        self.assertEqual(warm(self.server, "p"), 2)
        unnamed = self.server.create(template_name="t")
        self.assertRegex(unnamed.name, "^sandbox-[0-9a-f]{12}$")
        self.assertEqual(unnamed.output("ls /tmp"), "")
        self.assertNotIn(unnamed.document["id"], ids)
        listed = self.server.call("GET", "/boxes").json["sandboxes"]
        self.assertEqual([box["name"] for box in listed], ["boxTrue", "boxFalse", unnamed.name])
        self.assertEqual(self.server.call("DELETE", "/boxes/boxTrue").status, 204)
        # One of another template does not come from the pool.
        self.expect_warm("p", 2)
        before = agents(self.server)
        with self.server.create(template_name="cold"):
            self.assertEqual(len(agents(self.server)), len(before) + 1)

    def test_a_sandbox_from_a_pool_is_there_much_sooner(self):
        rounds, cold, pooled = 9, [], []
        for _ in range(rounds):
            start = time.perf_counter()
            box = self.server.create(template_name="cold")
            cold.append(time.perf_counter() - start)
            box.__exit__()
        self.pool(replicas=2)
        for _ in range(rounds):
            self.expect_warm("p", 2)
            start = time.perf_counter()
            box = self.server.create(template_name="t")
            pooled.append(time.perf_counter() - start)
            box.__exit__()
        cold, pooled = (statistics.median(times) * 1000 for times in (cold, pooled))
        print(f"# cold {cold:.1f} ms, from a pool {pooled:.2f} ms: {cold / pooled:.0f} times")
        self.assertGreater(cold / pooled, 5)

    def test_a_pool_is_made_larger_and_smaller(self):
        self.pool(replicas=1)
        for replicas in 5, 2, 0, 3:
            reply = self.server.call("PATCH", "/pools/p", {"replicas": replicas})
            self.assertEqual((reply.status, reply.json["replicas"]), (200, replicas))
            self.expect_warm("p", replicas)
            self.assertTrue(wait_until(lambda n=replicas: len(agents(self.server)) == n),
                            replicas)
        self.server.call("PATCH", "/pools/p", {"replicas": 0})
        self.assertTrue(wait_until(lambda: not agents(self.server)))
        with self.server.create(template_name="t") as box:  # a cold one
            self.assertEqual(box.output("echo works"), "works\n")
            time.sleep(0.3)
            self.assertEqual((warm(self.server, "p"), len(agents(self.server))), (0, 1))

    def test_a_sandbox_that_dies_in_a_pool_is_replaced(self):
        self.pool(replicas=2)
        before = agents(self.server)
        os.kill(before[0], signal.SIGKILL)
        self.assertTrue(wait_until(lambda: before[0] not in agents(self.server)))
        self.expect_warm("p", 2)
        self.assertEqual(len(set(agents(self.server)) & set(before)), 1)
        # One that is dead is not handed over, even if that has just happened.
        for _ in range(10):
            killed = agents(self.server)
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            while alive(killed):
                pass
            with self.server.create(template_name="t") as box:
                self.assertEqual(box.output("echo works"), "works\n")
            self.expect_warm("p", 2)

    def test_a_deleted_pool_leaves_no_process(self):
        for wait in True, False:
            self.pool(replicas=4, wait_for_ready=wait)
            kept = self.server.create(template_name="t") if wait else None
            self.assertEqual(self.server.call("DELETE", "/pools/p").status, 204)
            self.assertTrue(wait_until(lambda n=int(wait): len(agents(self.server)) == n))
            if kept:
                self.assertEqual(kept.output("echo works"), "works\n")
                kept.__exit__()

    def test_two_pools_of_a_template_share_the_work(self):
        self.pool("p1", 1)
        self.pool("p2", 1)
        for _ in range(4):
            self.server.create(template_name="t")
        self.expect_warm("p1", 1)
        self.expect_warm("p2", 1)
        self.assertEqual(len(agents(self.server)), 6)

    def test_a_pool_that_cannot_start_is_given_up_in_time_and_tries_seldom(self):
        logged, replies = len(self.server.said()), {}
        start = time.monotonic()

        def create(name, template, replicas):
            replies[name] = self.server.call("POST", "/pools", {
                "name": name, "template_name": template, "replicas": replicas,
                "wait_for_ready": True, "timeout": 10})
        threads = [threading.Thread(target=create, args=args)
                   for args in (("p", "broken", 3), ("f", "fading", 99))]
        for thread in threads:
            thread.start()
        self.assertTrue(wait_until(lambda: self.server.call("GET", "/pools/f").status == 200 and
                                   warm(self.server, "f") > 0))
        # At least one of its sandboxes is ready, and many cannot be any more.
        self.fading.rename(f"{self.fading}.away")
        for thread in threads:
            thread.join()
        self.assertLess(abs(time.monotonic() - start - 10), 3)
        self.expect_error(replies["p"], 504, "Timeout", r"only 0 of 3 sandboxes.*: .")
        self.expect_error(replies["f"], 504, "Timeout", r"only [1-9]\d? of 99 sandboxes.*: .")
        self.assertEqual(self.server.call("GET", "/pools").json, {"pools": []})
        self.assertTrue(wait_until(lambda: not agents(self.server)))
        tries = self.server.said()[logged:].count("pool 'p': a sandbox failed")
        self.assertGreaterEqual(tries, 4)
        self.assertLessEqual(tries, 7)
        logged = len(self.server.said())
        time.sleep(0.5)
        self.assertNotIn("pool", self.server.said()[logged:])

    def test_only_a_sandbox_that_is_ready_is_handed_over(self):
        for _ in range(5):
            self.pool(replicas=1, wait_for_ready=False)
            reply = self.server.call("POST", "/boxes", {"template_name": "t"})
            self.assertEqual((reply.status, reply.json["status"]), (201, "ready"))
            with Sandbox(self.server, reply.json) as box:
                self.assertEqual(box.output("echo works"), "works\n")
            self.server.call("DELETE", "/pools/p")

    def test_a_pool_can_be_deleted_while_its_creator_waits(self):
        replies = []
        creator = threading.Thread(target=lambda: replies.append(self.server.call(
            "POST", "/pools", {"name": "p", "template_name": "broken", "replicas": 1})))
        creator.start()
        self.assertTrue(wait_until(lambda: self.server.call("GET", "/pools/p").status == 200))
        self.expect_error(self.server.call("POST", "/pools", {
            "name": "p", "template_name": "t", "replicas": 1}), 409, "AlreadyExists")
        self.assertEqual(self.server.call("DELETE", "/pools/p").status, 204)
        creator.join()
        self.expect_error(replies[0], 422, "Deleted")

    def test_a_pool_stays_when_its_creator_goes(self):
        body = json.dumps({"name": "p", "template_name": "broken", "replicas": 1}).encode()
        with wire.dial(self.server.url) as connection:
            connection.sendall(b"POST /v2/sandboxes/pools HTTP/1.1\r\nHost: x\r\nContent-Length: "
                               b"%d\r\n\r\n%s" % (len(body), body))
            self.assertTrue(wait_until(lambda: self.server.call("GET", "/pools/p").status == 200))
        self.assertEqual(self.server.call("PATCH", "/pools/p", {"replicas": 0}).status, 200)

    def test_a_waiting_creator_is_answered_when_the_pool_shrinks(self):
        replies = []
        creator = threading.Thread(target=lambda: replies.append(self.server.call(
            "POST", "/pools", {"name": "p", "template_name": "broken", "replicas": 1})))
        creator.start()
        self.assertTrue(wait_until(lambda: self.server.call("GET", "/pools/p").status == 200))
        self.server.call("PATCH", "/pools/p", {"replicas": 0})
        creator.join()
        self.assertEqual((replies[0].status, replies[0].json["replicas"]), (201, 0))


class Quotas(WithOwnServers):
    def test_sandboxes_are_counted_with_those_in_pools(self):
        with self.start("--max-sandboxes", "4") as server:
            self.post(server, "/templates", name="t", image="i")
            self.post(server, "/templates", name="other", image="i")
            self.post(server, "/pools", name="p", template_name="t", replicas=2)
            more = {"name": "q", "template_name": "t", "wait_for_ready": False}
            self.expect_error(server.call("POST", "/pools", {**more, "replicas": 3}), 429,
                              "QuotaExceeded", "sandbox count .* limit of 4")
            self.expect_error(server.call("PATCH", "/pools/p", {"replicas": 5}), 429,
                              "QuotaExceeded", "sandbox count .* limit of 4")
            self.assertEqual(server.call("GET", "/pools/p").json["replicas"], 2)
            boxes = [server.create(template_name="other") for _ in range(2)]
            for document in {"template_name": "other"}, {}, {"wait_for_ready": False}:
                self.expect_error(server.call("POST", "/boxes", document), 429, "QuotaExceeded",
                                  "sandbox count .* limit of 4")
            for left in 1, 0:
                boxes.append(server.create(template_name="t"))
                time.sleep(0.2)
                self.assertEqual(warm(server, "p"), left)
            self.expect_error(server.call("POST", "/boxes", {"template_name": "t"}), 429,
                              "QuotaExceeded")
            self.assertEqual(len(agents(server)), 4)
            self.assertEqual(server.call("PATCH", "/pools/p", {"replicas": 1}).status, 200)
            boxes.pop().__exit__()
            self.assertTrue(wait_until(lambda: warm(server, "p") == 1))
            server.call("PATCH", "/pools/p", {"replicas": 0})
            self.assertTrue(wait_until(lambda: len(agents(server)) == 3))
            server.create()
        with self.start("--max-sandboxes", "1") as server:
            server.call("PATCH", "/pools/p", {"replicas": 1})
            self.assertTrue(wait_until(lambda: warm(server, "p") == 1))
            server.stop()
        # A quota that has shrunk since keeps a pool from being full, and nothing else.
        with self.start() as server:
            server.call("PATCH", "/pools/p", {"replicas": 3})
            server.stop()
        with self.start("--max-sandboxes", "2") as server:
            self.assertTrue(wait_until(lambda: warm(server, "p") == 2))
            time.sleep(0.2)
            self.assertEqual((warm(server, "p"), len(agents(server))), (2, 2))
            self.assertEqual(server.call("PATCH", "/pools/p", {"replicas": 2}).status, 200)

    def test_volumes_are_counted(self):
        with self.start("--max-volumes", "2") as server:
            for name in "a", "b":
                self.post(server, "/volumes", name=name, size="1Gi")
            reply = server.call("POST", "/volumes", {"name": "c", "size": "1Gi"})
            self.expect_error(reply, 429, "QuotaExceeded", "volume count .* limit of 2")
            self.assertNotIn("sandbox", reply.detail["message"])
            self.expect_error(server.call("POST", "/volumes", {"name": "a", "size": "1Gi"}), 409,
                              "AlreadyExists")
            self.assertEqual(len([path for path in (self.data / "volumes").iterdir()
                                  if path.is_dir()]), 2)
            server.call("DELETE", "/volumes/a")
            self.post(server, "/volumes", name="c", size="1Gi")


# ---- what outlives the server ----

class Client(threading.Thread):
    """Makes, changes and deletes resources of its own until the server is gone, and remembers what
    the server has acknowledged."""

    def __init__(self, server, prefix, seed, known):
        super().__init__()
        self.random = random.Random(seed)
        self.prefix = prefix
        self.known = known  # (kind, name) -> the document as it was answered
        self.flying = ()    # what the request that was not answered is about
        self.done = 0
        parts = urlsplit(server.url)
        self.path = parts.path
        self.connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)

    def send(self, method, path, document=None, flying=()):
        self.flying = flying
        self.connection.request(method, self.path + path,
                                None if document is None else json.dumps(document))
        response = self.connection.getresponse()
        body = response.read()
        status = response.status
        assert status < 500, (method, path, status, body)
        self.flying = ()
        self.done += 1
        return json.loads(body) if status in (200, 201) else status == 204

    def change(self, kind, name, document):
        renamed = document.get("name", name)
        answer = self.send("PATCH", f"/{kind}/{name}", document, ((kind, name), (kind, renamed)))
        if answer:
            del self.known[kind, name]
            self.known[kind, renamed] = answer

    def create(self, kind, **document):
        key = kind, document["name"]
        answer = self.send("POST", f"/{kind}", document, (key,))
        if answer:
            self.known[key] = answer

    def step(self):
        dice = self.random
        kind = dice.choice(KINDS)
        fresh = f"{self.prefix}{dice.randrange(10 ** 9)}"
        mine = [name for other, name in self.known if other == kind]
        volumes = [name for other, name in self.known if other == "volumes"]
        templates = [name for (other, name), document in self.known.items()
                     if other == "templates" and not document["volume_mounts"]]
        if len(mine) < 2 or (kind != "pools" and len(mine) < 8 and dice.random() < 0.4):
            if kind == "volumes":
                self.create(kind, name=fresh, size="1Gi")
            elif kind == "templates":
                mounts = [{"volume_name": dice.choice(volumes), "mount_path": "/data"}] \
                    if volumes and dice.random() < 0.5 else []
                self.create(kind, name=fresh, image="i", volume_mounts=mounts)
            elif templates:
                self.create(kind, name=fresh, template_name=dice.choice(templates), replicas=1,
                            wait_for_ready=False)
            return
        name = dice.choice(mine)
        if dice.random() < 0.4:
            if self.send("DELETE", f"/{kind}/{name}", None, ((kind, name),)):
                del self.known[kind, name]
        elif kind == "volumes" and dice.random() < 0.5:
            size = int(self.known[kind, name]["size"][:-2]) + 1
            self.change(kind, name, {"size": f"{size}Gi"})
        elif kind == "pools" and dice.random() < 0.5:
            self.change(kind, name, {"replicas": dice.randrange(2)})
        else:
            self.change(kind, name, {"name": fresh})

    def run(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                self.step()

    def settle(self, found):
        """What is wrong with what is there after a restart. From here on that is known."""
        wrong = []
        mine = {key: document for key, document in found.items() if key[1].startswith(self.prefix)}
        for key in set(mine) | set(self.known):
            if key not in self.flying and self.plain(mine.get(key)) != \
                    self.plain(self.known.get(key)):
                wrong.append(f"{key}: acknowledged {self.known.get(key)}, found {mine.get(key)}")
        there = [key for key in set(self.flying) if key in mine]
        if len(set(self.flying)) == 2 and len(there) != 1:
            wrong.append(f"a rename of {self.flying} left {there}")
        self.known = mine
        self.flying = ()
        return wrong

    @staticmethod
    def plain(document):
        """Without what a change of another resource shows in this one."""
        if not document:
            return None
        mounts = [{**mount, "volume_name": ""} for mount in document.get("volume_mounts", [])]
        return {**document, "volume_mounts": mounts, "ready_replicas": 0, "template_name": ""}


class Durability(WithOwnServers):
    def fill(self, server):
        self.post(server, "/volumes", name="v \u00e4/..", size="1Gi")
        self.post(server, "/volumes", name="w", size="5G")
        for i in range(5):
            self.post(server, "/templates", name=f"t{i}", image="i",
                      resources={"cpu": "1", "storage": "1G"} if i else {},
                      volume_mounts=[{"volume_name": "w", "mount_path": "/data"}] if i == 4 else [])
        self.post(server, "/pools", name="p", template_name="t1", replicas=2)
        return everything(server)

    def test_a_restart_finds_everything_as_it_was(self):
        for number in signal.SIGTERM, signal.SIGKILL:
            with self.start() as server:
                if number == signal.SIGTERM:
                    before = self.fill(server)
                else:
                    self.assertEqual(everything(server), before)
                    self.assertTrue(wait_until(lambda: warm(server, "p") == 2))
                    with server.create(template_name="t1") as box:
                        self.assertEqual(box.output("echo works"), "works\n")
                server.create(name="box")
                server.stop(number)
        with self.start() as server:
            self.assertEqual(everything(server), before)
            self.assertEqual(server.call("GET", "/boxes").json, {"sandboxes": []})
            self.expect_error(server.call("DELETE", "/templates/t1"), 409, "ResourceInUse")
            self.expect_error(server.call("DELETE", "/volumes/w"), 409, "ResourceInUse")
            self.expect_error(server.call("POST", "/templates", {"name": "t2", "image": "i"}), 409,
                              "AlreadyExists")
            for path in "pools/p", "templates/t4", "volumes/w", "templates/t2":
                self.assertEqual(server.call("DELETE", f"/{path}").status, 204)
            server.call("PATCH", "/templates/t3", {"name": "t2"})
            after = everything(server)
        with self.start() as server:
            self.assertEqual(everything(server), after)
            self.assertEqual([item["name"] for item in after["templates"]], ["t0", "t1", "t2"])
            self.assertTrue(wait_until(lambda: len(os.listdir(self.data / "volumes")) == 2))

    def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(self):
        seed = random.randrange(10 ** 6)
        dice = random.Random(seed)
        clients, known, done, start = [], [{}, {}], 0, time.monotonic()
        rounds, wrong = 0, []
        while not wrong and (rounds < 32 or done < 200 or clients):
            with self.start() as server:
                found = {(kind, item["name"]): item for kind in KINDS
                         for item in server.call("GET", f"/{kind}").json[kind]}
                for client in clients:
                    wrong += client.settle(found)
                known = [client.known for client in clients] or known
                done += sum(client.done for client in clients)
                wrong += [line for line in server.said().splitlines() if "ignored" in line]
                clients = []
                if rounds < 32 or done < 200:
                    self.assertLess(time.monotonic() - start, 60, "too slow")
                    clients = [Client(server, prefix, dice.random(), known[i])
                               for i, prefix in enumerate("ab")]
                    for client in clients:
                        client.start()
                    time.sleep(dice.choice((0.02, 0.1, 0.3)) * dice.random())
                    server.stop(signal.SIGKILL)
                    for client in clients:
                        client.join()
                        client.connection.close()
                    rounds += 1
        self.assertEqual(wrong, [], f"seed {seed}, round {rounds}")
        self.assertEqual([name for kind in KINDS for name in os.listdir(self.data / kind)
                          if name.endswith((".new", ".deleted"))], [])
        print(f"# {rounds} kills in {time.monotonic() - start:.1f} s, {done} requests answered")

    def test_damaged_and_foreign_files_are_reported_and_kept(self):
        with self.start() as server:
            before = self.fill(server)
        ids = {item["name"]: item["id"] for kind in KINDS for item in before[kind]}
        templates, volumes, pools = (self.data / kind for kind in
                                     ("templates", "volumes", "pools"))
        good = (templates / f"{ids['t0']}.json").read_text()
        other, last = "00000000-0000-4000-8000-00000000000", "ffffffff-ffff-4fff-bfff-ffffffffffff"
        bad = {
            templates / f"{ids['t0']}.json": good[:-20],
            templates / f"{ids['t3']}.json": "",
            templates / f"{other}0.json": good,  # another's id
            templates / f"{last}.json": json.dumps({**json.loads(good), "id": last, "name": "t2"}),
            templates / f"{other}2.json": json.dumps({**json.loads(good), "id": f"{other}2",
                                                      "name": None}),
            templates / f"{other}3.json": json.dumps({**json.loads(good), "id": f"{other}3",
                                                      "resources": {"cpu": "x"}}),
            templates / f"{other}4.json": "[" * 2000,
            templates / f"{other}5.json": json.dumps({**json.loads(good), "id": f"{other}5",
                                                      "created_at": "x" * 99}),
            templates / f"{other}6.json": "\0" * (2 << 20),
            templates / "notes.txt": "remember the milk",
            volumes / f"{ids['w']}.json": "{}",  # so t4 has lost its volume
            pools / f"{other}7.json": json.dumps({"id": f"{other}7", "name": "x", "replicas": 500,
                                                  "template_id": ids["t1"], "created_at": "1",
                                                  "updated_at": "1"}),
            pools / f"{other}8.json": json.dumps({"id": f"{other}8", "name": "x", "replicas": 1,
                                                  "template_id": "none", "created_at": "1",
                                                  "updated_at": "1"}),
        }
        for path, text in bad.items():
            path.write_text(text)
        os.mkfifo(templates / f"{other}9.json")
        os.symlink("/etc/passwd", templates / f"{other}a.json")
        (templates / f"{other}b.json").mkdir()
        (templates / f"{other}c.new").write_text(good[:9])
        content = volumes / ids["w"] / "content" / "file"
        content.write_text("precious")
        (volumes / f"{other}d" / "content").mkdir(parents=True)  # left by a creation
        (volumes / f"{other}e" / "content").mkdir(parents=True)
        (volumes / f"{other}e" / "content" / "x").write_text("whose?")
        with self.start() as server:
            now, said = everything(server), server.said()
            self.assertEqual([[item["name"] for item in now[kind]] for kind in KINDS],
                             [["v \u00e4/.."], ["t1", "t2"], ["p"]])
            for path in (*bad, templates / f"{other}9.json", templates / f"{other}a.json",
                         templates / f"{other}b.json"):
                self.assertRegex(said, rf"{re.escape(str(path))} is ignored: .")
            self.assertRegex(said, rf"{ids['t4']}.json is ignored: volume_mounts.volume_id: there "
                                   r"is no such volume\n")
            self.assertIn(f"{other}e is ignored", said)
            self.post(server, "/templates", name="t0", image="i")
        for path, text in bad.items():
            self.assertEqual(path.read_text(), text)
        self.assertEqual(content.read_text(), "precious")
        self.assertTrue((volumes / f"{other}e" / "content" / "x").exists())
        self.assertFalse((volumes / f"{other}d").exists())
        self.assertFalse((templates / f"{other}c.new").exists())
        # The operator repairs the volume: its template is there again.
        with self.start() as server:
            known = {item["name"]: item for item in before["volumes"]}
            (volumes / f"{ids['w']}.json").write_text(json.dumps(known["w"]))
        with self.start() as server:
            self.assertEqual(server.call("GET", "/templates/t4").json["volume_mounts"][0][
                "volume_name"], "w")

    def test_a_deletion_that_was_cut_short_goes_on(self):
        with self.start() as server:
            a, b = (self.post(server, "/volumes", name=name, size="1Gi") for name in "ab")
        directory = self.data / "volumes"
        for volume in a, b:
            (directory / volume["id"] / "content" / "x").write_text(volume["name"])
            (directory / volume["id"]).rename(directory / f"{volume['id']}.deleted")
        (directory / f"{a['id']}.json").unlink()
        with self.start() as server:
            self.assertEqual(server.call("GET", "/volumes").json["volumes"], [b])
            self.assertTrue(wait_until(lambda: not (directory / f"{a['id']}.deleted").exists()))
        self.assertEqual((directory / b["id"] / "content" / "x").read_text(), "b")
        shutil.rmtree(directory / b["id"])
        with self.start():
            self.assertTrue((directory / b["id"] / "content").is_dir())

    def expect_unchanged(self, server, status, kind):
        """Nothing can be stored: every change is refused and changes nothing."""
        before, files = everything(server), self.files()
        for method, path, document in (
                ("POST", "/templates", {"name": "new", "image": "i"}),
                ("POST", "/volumes", {"name": "new", "size": "1Gi"}),
                ("POST", "/pools", {"name": "new", "template_name": "t1", "replicas": 1}),
                ("PATCH", "/templates/t0", {"name": "new"}),
                ("PATCH", "/volumes/w", {"name": "new", "size": "9Gi"}),
                ("PATCH", "/pools/p", {"name": "new", "replicas": 1})):
            reply = server.call(method, path, document)
            self.expect_error(reply, status, kind, "could not be stored.*nothing was changed")
        self.assertEqual(everything(server), before)
        self.assertEqual(self.files(), files)

    def files(self):
        return {str(path): path.read_bytes() if path.is_file() else None
                for kind in KINDS for path in (self.data / kind).rglob("*")}

    def test_a_full_disk_changes_nothing(self):
        self.data.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", self.data],
                                 capture_output=True)
        if mounted.returncode != 0:
            self.skipTest("only root can mount a small disk")
        try:
            with self.start() as server:
                self.fill(server)
                with open(self.data / "large", "wb", buffering=0) as file, \
                        contextlib.suppress(OSError):
                    while file.write(b"x" * 4096):
                        pass
                self.expect_unchanged(server, 507, "InsufficientStorage")
                self.assertEqual(server.call("DELETE", "/templates/t0").status, 204)
                before = everything(server)
                server.stop(signal.SIGKILL)
            os.unlink(self.data / "large")
            with self.start() as server:
                self.assertEqual(everything(server), before)
                self.post(server, "/templates", name="new", image="i")
        finally:
            subprocess.run(["umount", "-l", self.data], check=True)

    def test_a_limit_of_the_size_of_files_changes_nothing(self):
        with self.start() as server:
            self.fill(server)
            limits = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, limits[1]))
            self.expect_unchanged(server, 507, "InsufficientStorage")
            resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, limits)
            self.assertEqual(server.call("PATCH", "/templates/t0", {"name": "new"}).status, 200)

    def test_a_directory_that_is_gone_changes_nothing(self):
        with self.start() as server:
            before = self.fill(server)
            for kind in KINDS:
                (self.data / kind).rename(self.data / f"{kind}.away")
            self.expect_unchanged(server, 500, "StorageError")
            for path in "templates/t2", "pools/p":
                self.expect_error(server.call("DELETE", f"/{path}"), 500, "StorageError")
            self.assertEqual(everything(server), before)
            for kind in KINDS:
                (self.data / f"{kind}.away").rename(self.data / kind)
            self.assertEqual(server.call("DELETE", "/pools/p").status, 204)
            server.stop(signal.SIGKILL)
        with self.start() as server:
            self.assertEqual(everything(server), {**before, "pools": []})

    def test_a_data_directory_that_cannot_be_used_is_an_error_at_the_start(self):
        self.data.mkdir()
        (self.data / "templates").write_text("not a directory")
        done = subprocess.run([SANDBOXD, "--no-isolation", "--data", self.data],
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("templates: Not a directory", done.stderr)

    def test_a_data_directory_whose_path_is_too_long_is_an_error_at_the_start(self):
        self.data.mkdir()
        where = os.getcwd()
        self.addCleanup(os.chdir, where)
        os.chdir(self.data)
        for _ in range(25):
            os.mkdir("d" * 200)
            os.chdir("d" * 200)
        done = subprocess.run([SANDBOXD, "--no-isolation", "--data", "deep"], timeout=20,
                              capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertRegex(done.stderr, "cannot use deep: ")

    def test_files_are_flushed_before_the_answer(self):
        if not shutil.which("strace") or SANITIZED:
            self.skipTest("needs strace, and a build that can be traced")
        with self.start() as server, tempfile.NamedTemporaryFile("r") as trace:
            made = self.post(server, "/templates", name="t", image="i")
            strace = subprocess.Popen(
                ["strace", "-p", str(server.process.pid), "-o", trace.name, "-y", "-s", "20", "-e",
                 "trace=fsync,rename,renameat,renameat2,unlinkat,write,writev,sendto,sendmsg"],
                stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                if "attached" not in strace.stderr.readline():
                    self.skipTest("strace may not attach")
                server.call("PATCH", "/templates/t", {"name": "u"})
                server.call("DELETE", "/templates/u")
            finally:
                strace.send_signal(signal.SIGINT)
                strace.wait()
                strace.stderr.close()
            lines = trace.read()
        name, directory = made["id"], re.escape(str(self.data / "templates"))
        self.assertRegex(lines, rf'(?s)fsync\(\d+<{directory}/{name}\.new>\).*?'
                                rf'rename\w*\(.*?{name}\.new.*?{name}\.json.*?'
                                rf'fsync\(\d+<{directory}>\).*?HTTP/1\.1 200.*?'
                                rf'unlinkat\(.*?{name}\.json.*?'
                                rf'fsync\(\d+<{directory}>\).*?HTTP/1\.1 204')


class Everywhere(WithOwnServers):
    def test_all_routes_want_the_key_and_are_under_both_paths(self):
        with self.start(key="k", env={"SANDBOXD_API_KEY": "k"}) as server:
            for kind in KINDS:
                for method, path in (("GET", kind), ("POST", kind), ("GET", f"{kind}/x"),
                                     ("PATCH", f"{kind}/x"), ("DELETE", f"{kind}/x")):
                    for headers in {}, {"X-Api-Key": "wrong"}:
                        reply = server.call(method, f"/{path}", {}, headers=headers)
                        self.assertEqual(reply.status, 401, (method, path))
                for prefix in "/v2/sandboxes", "/api/v2/sandboxes":
                    reply = wire.request(f"{server.origin}{prefix}/{kind}", headers=server.key)
                    self.assertEqual((reply.status, reply.json), (200, {kind: []}))
                reply = server.call("PUT", f"/{kind}/x")
                self.assertEqual((reply.status, reply.headers["Allow"]),
                                 (405, "GET, HEAD, PATCH, DELETE"))

    def test_many_connections_leave_files_for_the_rest(self):
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        try:
            server = self.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with server, contextlib.ExitStack() as idle:
            for _ in range(300):
                idle.enter_context(wire.dial(server.url))
            self.post(server, "/templates", name="t", image="i")
            with server.create(template_name="t") as box:  # which has the limit as it was
                self.assertEqual(box.output("ulimit -n"), "256\n")

    def test_the_end_waits_for_what_is_in_pools(self):
        with self.start() as server:
            self.post(server, "/templates", name="t", image="i")
            self.post(server, "/pools", name="p", template_name="t", replicas=2)
            processes = agents(server)
            self.assertEqual(len(processes), 2)
            for pid in processes:
                os.kill(pid, signal.SIGSTOP)  # so that they do not end by themselves
            self.assertEqual(server.stop(), 0)
            self.assertEqual(alive(processes), [])

    def test_a_second_signal_ends_by_force_unless_it_comes_at_once(self):
        for pause, status in (0.05, 0), (0.6, 1):
            with self.start() as server:
                agent = server.create().agent()
                os.kill(agent, signal.SIGSTOP)  # so that the end takes 2 seconds
                server.process.send_signal(signal.SIGTERM)
                time.sleep(pause)
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.process.wait(20), status)
                self.assertEqual("ended by force" in server.said(), status == 1)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(agent, signal.SIGCONT)

    def test_an_end_amid_everything_leaves_no_process(self):
        for i in range(8):
            with self.start() as server:
                if i == 0:
                    self.post(server, "/templates", name="t", image="i")
                    self.post(server, "/pools", name="p", template_name="t", replicas=5)
                server.call("POST", "/boxes", {"template_name": "t", "wait_for_ready": False})
                server.call("POST", "/volumes", {"name": f"v{i}", "size": "1Gi"})
                server.call("DELETE", f"/volumes/v{i}")
                if i == 6:
                    server.call("DELETE", "/pools/p")
                time.sleep(0.01 * i)
                processes = descendants(server.process.pid)
                self.assertEqual(server.stop(), 0)
                self.assertEqual(alive(processes), [])
                self.assertNotIn("ERROR", server.said())


# ---- everything at once ----

class Disturber(threading.Thread):
    """Does things at random until the end, with names that all of these threads share, so that
    what they do meets at every moment."""

    ALLOWED = 200, 201, 204, 400, 404, 408, 409, 422, 429, 503, 504

    def __init__(self, server, seed, until):
        super().__init__()
        self.server, self.until, self.random = server, until, random.Random(seed)
        self.wrong, self.done, self.ending = [], 0, False

    def name(self, kind):
        return f"{kind}{self.random.randrange(4)}"

    def send(self, method, path, document=None):
        reply = self.server.call(method, path, document)
        self.done += 1
        if reply.status not in self.ALLOWED:
            self.wrong.append((method, path, document, reply))
        return reply

    def send_and_leave(self, method, path, document):
        """Does not wait for the answer, or not for long; another request may follow at once."""
        dice, body = self.random, json.dumps(document).encode()
        request = b"%s /v2/sandboxes%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"
        data = request % (method.encode(), path.encode(), len(body), body)
        name = document.get("name")
        if name and dice.random() < 0.5:
            data += request % (b"DELETE", f"{path}/{name}".encode(), 0, b"")
        with wire.dial(self.server.url) as connection:
            connection.sendall(data[:dice.choice((len(data), dice.randrange(len(data))))])
            time.sleep(dice.choice((0, 0.01, 0.1)))

    def kill(self):
        pids = [pid for pid in descendants(self.server.process.pid)]
        if pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.random.choice(pids), signal.SIGKILL)

    def create(self, send):
        dice = self.random
        kind = dice.choice(("volumes", "templates", "pools", "boxes", "boxes", "boxes"))
        document = {"name": self.name(kind)}
        if kind == "volumes":
            document.update(size="1Gi")
        elif kind == "templates":
            document.update(image=dice.choice(("i", "i", "i", "none")), volume_mounts=[
                {"volume_name": self.name("volumes"), "mount_path": "/data"}] *
                dice.randrange(2))
        else:
            document.update(template_name=self.name("templates"),
                            wait_for_ready=dice.random() < 0.5)
        if kind == "boxes" and dice.random() < 0.5:
            del document["template_name"]
        if kind == "pools":  # who waits, waits for 10 seconds if the image is missing
            document.update(replicas=dice.randrange(1, 5), wait_for_ready=False)
        elif kind == "boxes":
            document.update(timeout=dice.choice((0, 0.01, 0.03, 20)))
        send("POST", f"/{kind}", document)

    def change(self):
        kind = self.random.choice((*KINDS, "boxes"))
        document = {}
        if self.random.random() < 0.5:
            document["name"] = self.name(kind)
        if kind == "pools":
            document["replicas"] = self.random.randrange(5)
        elif kind == "volumes":
            document["size"] = f"{self.random.randrange(1, 5)}Gi"
        self.send("PATCH", f"/{kind}/{self.name(kind)}", document)

    def step(self):
        dice = self.random.random()
        kind = self.random.choice((*KINDS, "boxes", "boxes", "boxes"))
        if dice < 0.4:
            self.create(self.send if dice < 0.3 else self.send_and_leave)
        elif dice < 0.55:
            self.change()
        elif dice < 0.85:
            self.send("DELETE", f"/{kind}/{self.name(kind)}")
        elif dice < 0.9:
            self.kill()
        else:
            self.send("GET", f"/{kind}")

    def run(self):
        try:
            while time.monotonic() < self.until:
                self.step()
        except Exception as error:  # pylint: disable=broad-except
            if not self.ending or not isinstance(error, (OSError, http.client.HTTPException)):
                self.wrong.append(error)


class Disturbance(WithOrphans, WithOwnServers):
    MOST = 12

    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("SEED", random.randrange(10 ** 9)))
        self.seconds = float(os.environ.get("SECONDS", 4))
        image = tempfile.TemporaryDirectory()
        self.addCleanup(image.cleanup)
        copy_program(str(SANDBOXD), Path(image.name))
        os.chmod(image.name, 0o755)
        self.options = "--max-sandboxes", str(self.MOST), "--image", f"i={image.name}"

    def start(self, *options, **more):
        return Server("--data", str(self.data), *self.options, *options, **more)

    def disturb(self, server, seconds):
        until = time.monotonic() + seconds
        threads = [Disturber(server, f"{self.seed}{i}", until) for i in range(6)]
        for thread in threads:
            thread.start()
        return threads

    def test_an_end_amid_all_that_leaves_nothing_behind(self):
        end, rounds = time.monotonic() + self.seconds, 0
        while time.monotonic() < end or rounds < 4:
            with self.start() as server:
                threads = self.disturb(server, 20)
                time.sleep(0.1 + 0.4 * random.random())
                for thread in threads:
                    thread.ending = True
                status = server.stop()
                for thread in threads:
                    thread.join()
                said = f"seed {self.seed}, round {rounds}: {server.said()}"
                self.assertEqual([what for thread in threads for what in thread.wrong], [], said)
                self.assertEqual(status, 0, said)
                self.expect_no_process()
                self.assertEqual(groups(server.process.pid), [], said)
                self.assertNotRegex(said, "ERROR|could not be removed")
                self.assertEqual(os.listdir(self.data / "sandboxes")
                                 if (self.data / "sandboxes").exists() else [], [], said)
                self.seed += 1
                rounds += 1
        print(f"# {rounds} rounds")

    def test_much_at_once_leaves_nothing_behind(self):
        seed, most = self.seed, self.MOST
        with self.start() as server:
            own = groups(server.process.pid)
            threads = self.disturb(server, self.seconds)
            for thread in threads:
                thread.join()
            wrong = [what for thread in threads for what in thread.wrong]
            self.assertEqual(wrong, [], f"seed {seed}: {server.said()}")
            for kind in "boxes", "pools", "templates", "volumes":
                for item in next(iter(server.call("GET", f"/{kind}").json.values())):
                    self.assertEqual(server.call("DELETE", f"/{kind}/{item['name']}").status, 204,
                                     f"seed {seed}: {kind}/{item['name']}")
            left = f"seed {seed}: {server.said()}"
            self.assertTrue(wait_until(lambda: not agents(server)), left)
            self.assertTrue(wait_until(lambda: groups(server.process.pid) == own), left)
            for kind in ("sandboxes", *KINDS):
                self.assertTrue(wait_until(lambda k=kind: not os.listdir(self.data / k)), left)
            self.assertEqual(descendants(server.process.pid), [], left)
            # As many as ever fit, and no more.
            for _ in range(most):
                server.call("POST", "/boxes", {"wait_for_ready": False})
            self.assertEqual(server.call("POST", "/boxes", {}).status, 429)
            self.assertEqual(len(server.call("GET", "/boxes").json["sandboxes"]), most)
            self.assertEqual(server.stop(), 0, left)
            self.assertNotRegex(server.said(), "ERROR|could not be removed")
            self.expect_no_process()
        print(f"# seed {seed}: {sum(thread.done for thread in threads)} requests")


if __name__ == "__main__":
    main(__name__)
