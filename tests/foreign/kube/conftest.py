"""A cluster for each test, and kubectl that knows nothing but its address."""

import subprocess
import tempfile
from pathlib import Path

import pytest

from simulator import Sim

# Nothing of the person who runs the tests gets in.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KUBECONFIG": "/dev/null"}

CONFIG = {
    "nodes": [
        {"name": "node-1", "subnet": "subnet-1", "address": "10.0.1.10", "labels": {"team": "a"}},
        {"name": "node-2", "subnet": "subnet-2", "address": "10.0.2.10", "max_pods": 7},
    ],
    "objects": [
        {
            "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
            "kind": "ENIConfig",
            "metadata": {"name": "us-east-1a"},
            "spec": {"subnet": "subnet-0123456789abcdef0", "securityGroups": ["sg-0123456789abcdef0"]},
        }
    ],
}


def pytest_addoption(parser):
    parser.addoption("--vpc-sim", required=True, type=Path, help="the simulator to test")
    parser.addoption("--kubectl", type=Path, help="kubectl, for its own tests")
    parser.addoption("--informer", type=Path, help="the built program of tests/foreign/informer, for its own tests")


def pytest_ignore_collect(collection_path, config):
    """Which tests run is decided by whoever names the programs, never by a test that finds its program missing."""
    needed = {"test_kubectl.py": "--kubectl", "test_informers.py": "--informer"}.get(collection_path.name)
    return True if needed and config.getoption(needed) is None else None


@pytest.fixture
def start(request):
    """Starts simulators that end with the test."""
    with tempfile.TemporaryDirectory(prefix="vpc-sim-foreign-") as directory:
        running = []

        def one(*options, config=CONFIG):
            running.append(Sim(request.config.getoption("--vpc-sim"), Path(directory), config, *options))
            return running[-1]

        try:
            yield one
        finally:
            for sim in running:
                sim.end()


@pytest.fixture
def sim(start):
    return start("ec2", "--listen", "127.0.0.1:0", "--kube-listen", "127.0.0.1:0")


@pytest.fixture
def command(request, sim, tmp_path):
    """The command line of kubectl for the cluster. Its cache lies in the test's own directory."""
    program = request.config.getoption("--kubectl")

    def line(*arguments):
        return [program, "--server", sim.ready["kube"], "--cache-dir", tmp_path, "--request-timeout", "20s", *arguments]

    return line


@pytest.fixture
def kubectl(command):
    def run(*arguments, stdin=""):
        return subprocess.run(
            command(*arguments), env=ENVIRONMENT, input=stdin, capture_output=True, text=True, timeout=60
        )

    return run


def good(done):
    assert done.returncode == 0, done.stderr
    return done.stdout
