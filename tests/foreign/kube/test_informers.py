"""client-go's informers, as node agents use them: synced by watches alone, over an API server that goes away and forgets."""

import json
import subprocess
import time

import pytest

from conftest import ENVIRONMENT


class Informer:
    """The program, and its lines so far."""

    def __init__(self, program, kubeconfig):
        environment = {**ENVIRONMENT, "KUBECONFIG": str(kubeconfig)}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen([program, "node-1"], env=environment, text=True, **pipes)

    def until(self, wanted):
        """Lines up to the one that begins so. The limit of the whole suite ends a wait in vain."""
        lines = []
        for line in self.process.stdout:
            lines.append(line.strip())
            if lines[-1].startswith(wanted):
                return lines
        raise AssertionError(f"no {wanted!r} after {lines}: {self.process.stderr.read()}")

    def end(self):
        self.process.stdin.close()
        try:
            return self.process.wait(timeout=20)
        finally:
            self.process.kill()


@pytest.fixture
def informer(request, sim, tmp_path):
    kubeconfig = tmp_path / "kubeconfig"
    named = {"name": "a", "cluster": {"server": sim.ready["kube"]}, "user": {"token": "t"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": named["cluster"]}],
        "users": [{"name": "a", "user": named["user"]}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    }
    kubeconfig.write_text(json.dumps(config))
    sim.ctl("kube", "pod", "early", "--node", "node-1")
    running = Informer(request.config.getoption("--informer"), kubeconfig)
    yield running
    running.process.kill()
    running.process.wait(timeout=20)


def test_informers_sync_by_watches_alone_and_see_every_change(sim, informer):
    first = informer.until("synced with v1.32")
    assert sorted(first[:-1]) == ["add ENIConfig us-east-1a", "add node node-1 29 pods", "add pod early"]
    sim.ctl("kube", "pod", "web-1", "--node", "node-1")
    sim.ctl("kube", "pod", "other", "--node", "node-2")
    sim.ctl("kube", "delete", "pods", "web-1")
    assert informer.until("delete") == ["add pod web-1", "delete pod web-1"]
    counts = sim.ctl("kube", "counts")
    assert not any(what.startswith("GET ") for what in counts if what != "GET /version"), counts
    assert {what: counts[what] for what in counts if what.startswith("WATCH")} == {
        "WATCH pods": 1,
        "WATCH nodes": 1,
        "WATCH eniconfigs.crd.k8s.amazonaws.com": 1,
    }
    deadline = time.monotonic() + 20
    while not sim.ctl("kube", "get", "events") and time.monotonic() < deadline:
        pass
    assert sim.ctl("kube", "get", "events")[0]["message"] == "written by client-go"
    assert informer.end() == 0


def test_informers_come_back_after_the_api_server_was_away_and_forgot(sim, informer):
    informer.until("synced")
    sim.ctl("kube", "refuse")
    sim.ctl("kube", "pod", "meanwhile", "--node", "node-1")
    sim.ctl("kube", "delete", "pods", "early")
    sim.ctl("kube", "forget")
    sim.ctl("kube", "serve")
    lines = informer.until("add pod meanwhile")
    if "delete pod early" not in lines:
        lines += informer.until("delete pod early")
    assert "delete pod early" in lines
    assert informer.end() == 0
