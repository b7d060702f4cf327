"""kubectl against the simulated cluster: what people and scripts do on a node's cluster, with exit codes and error texts."""

import json
import subprocess

import pytest

from conftest import CONFIG, ENVIRONMENT, good


def words(text):
    return [line.split() for line in text.splitlines()]


def test_the_version_and_the_resources_are_discovered(kubectl):
    assert json.loads(good(kubectl("get", "--raw", "/version")))["minor"] == "32"
    assert "Server Version: v1.32.0-vpc-sim" in good(kubectl("version"))
    kinds = good(kubectl("api-resources", "--no-headers"))
    for name, group, kind in [
        ("nodes", "v1", "Node"),
        ("pods", "v1", "Pod"),
        ("events", "events.k8s.io/v1", "Event"),
        ("eniconfigs", "crd.k8s.amazonaws.com/v1alpha1", "ENIConfig"),
        ("cninodes", "vpcresources.k8s.aws/v1alpha1", "CNINode"),
    ]:
        assert any(line[0] == name and group in line and line[-1] == kind for line in words(kinds)), (name, kinds)
    assert "crd.k8s.amazonaws.com/v1alpha1" in good(kubectl("api-versions")).splitlines()


def test_nodes_are_those_of_the_configuration(kubectl):
    head, *rows = words(good(kubectl("get", "nodes", "-o", "wide")))
    assert head[:4] == ["NAME", "STATUS", "VERSION", "PODS"]
    assert [row[:5] for row in rows] == [
        ["node-1", "Ready", "v1.32.0-vpc-sim", "29", "10.0.1.10"],
        ["node-2", "Ready", "v1.32.0-vpc-sim", "7", "10.0.2.10"],
    ]
    node = json.loads(good(kubectl("get", "node", "node-1", "-o", "json")))
    assert node["metadata"]["labels"]["team"] == "a" and node["status"]["capacity"]["pods"] == "29"
    assert good(kubectl("get", "nodes", "-l", "team=a", "-o", "name")) == "node/node-1\n"
    assert good(kubectl("get", "nodes", "--field-selector", "metadata.name=node-2", "-o", "name")) == "node/node-2\n"
    assert good(kubectl("wait", "--for=condition=Ready", "node/node-1", "--timeout=10s")) == "node/node-1 condition met\n"
    assert "ProviderID" in good(kubectl("describe", "node", "node-1"))


def test_annotations_and_labels_are_written(kubectl):
    assert good(kubectl("annotate", "node", "node-1", "k8s.amazonaws.com/eniConfig=us-east-1a")) == "node/node-1 annotated\n"
    assert good(kubectl("label", "node", "node-1", "team=b", "--overwrite")) == "node/node-1 labeled\n"
    good(kubectl("taint", "node", "node-1", "node.kubernetes.io/unschedulable=:NoSchedule"))
    node = json.loads(good(kubectl("get", "node", "node-1", "-o", "json")))
    assert node["metadata"]["annotations"]["k8s.amazonaws.com/eniConfig"] == "us-east-1a"
    assert node["metadata"]["labels"]["team"] == "b"
    assert [taint["key"] for taint in node["spec"]["taints"]] == ["node.kubernetes.io/unschedulable"]
    assert node["status"]["capacity"]["pods"] == "29", "the status is left alone"
    assert good(kubectl("annotate", "node", "node-1", "k8s.amazonaws.com/eniConfig-")) == "node/node-1 annotated\n"
    assert "eniConfig" not in good(kubectl("get", "node", "node-1", "-o", "jsonpath={.metadata.annotations}"))


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("merge", '{"metadata": {"annotations": {"vpc.amazonaws.com/pod-ips": "10.0.1.30"}}}'),
        ("strategic", '{"metadata": {"annotations": {"vpc.amazonaws.com/pod-ips": "10.0.1.30"}}}'),
        ("json", '[{"op": "add", "path": "/metadata/annotations", "value": {"vpc.amazonaws.com/pod-ips": "10.0.1.30"}}]'),
    ],
)
def test_a_pod_is_patched_in_each_way(sim, kubectl, kind, patch):
    sim.ctl("kube", "pod", "web-1", "--node", "node-1")
    assert good(kubectl("patch", "pod", "web-1", "--type", kind, "-p", patch)) == "pod/web-1 patched\n"
    jsonpath = "jsonpath={.metadata.annotations.vpc\\.amazonaws\\.com/pod-ips}"
    assert good(kubectl("get", "pod", "web-1", "-o", jsonpath)) == "10.0.1.30"
    status = '{"status": {"phase": "Failed"}}'
    good(kubectl("patch", "pod", "web-1", "--subresource", "status", "--type", "merge", "-p", status))
    assert good(kubectl("get", "pod", "web-1", "-o", "jsonpath={.status.phase}")) == "Failed"


def test_a_watch_prints_what_happens(sim, kubectl, command):
    sim.ctl("kube", "pod", "early", "--node", "node-1")
    watch = command("get", "pods", "-A", "--watch", "--output-watch-events", "-o", "wide", "--request-timeout", "60s")
    with subprocess.Popen(watch, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as watching:
        try:
            lines = [watching.stdout.readline().split() for _ in range(2)]
            sim.ctl("kube", "pod", "web-1", "--node", "node-2", "--address", "10.0.2.30")
            good(kubectl("label", "pod", "web-1", "a=b"))
            sim.ctl("kube", "delete", "pods", "web-1")
            lines += [watching.stdout.readline().split() for _ in range(3)]
        finally:
            watching.kill()
    assert lines == [
        ["EVENT", "NAMESPACE", "NAME", "STATUS", "IP", "NODE"],
        ["ADDED", "default", "early", "Pending", "<none>", "node-1"],
        ["ADDED", "default", "web-1", "Running", "10.0.2.30", "node-2"],
        ["MODIFIED", "default", "web-1", "Running", "10.0.2.30", "node-2"],
        ["DELETED", "default", "web-1", "Running", "10.0.2.30", "node-2"],
    ]


def test_objects_are_created_replaced_and_deleted(kubectl):
    config = {**CONFIG["objects"][0], "metadata": {"name": "us-east-1b"}}
    created = kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(config))
    assert good(created) == "eniconfig.crd.k8s.amazonaws.com/us-east-1b created\n"
    assert words(good(kubectl("get", "eniconfigs", "--no-headers"))) == [
        ["us-east-1a", "subnet-0123456789abcdef0"],
        ["us-east-1b", "subnet-0123456789abcdef0"],
    ]
    config["spec"]["subnet"] = "subnet-1"
    good(kubectl("replace", "--validate=false", "-f", "-", stdin=json.dumps(config)))
    assert good(kubectl("get", "eniconfig", "us-east-1b", "-o", "jsonpath={.spec.subnet}")) == "subnet-1"
    good(kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps({**config, "spec": {"subnet": "subnet-2"}})))
    assert good(kubectl("get", "eniconfig", "us-east-1b", "-o", "jsonpath={.spec.subnet}")) == "subnet-2"
    deleted = good(kubectl("delete", "eniconfig", "us-east-1b", "--timeout", "10s"))
    assert deleted == 'eniconfig.crd.k8s.amazonaws.com "us-east-1b" deleted\n'


def test_a_feature_of_a_cninode_is_added(kubectl):
    patch = '{"spec": {"features": [{"name": "SecurityGroupsForPods"}]}}'
    good(kubectl("patch", "cninode", "node-1", "--type", "merge", "-p", patch))
    assert good(kubectl("get", "cninode", "node-1", "-o", "jsonpath={.spec.features[0].name}")) == "SecurityGroupsForPods"


def test_events_are_kept_and_listed(kubectl):
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"generateName": "aws-node.", "namespace": "kube-system"},
        "eventTime": "2026-01-02T03:04:05.000000Z",
        "regarding": {"kind": "Pod", "namespace": "kube-system", "name": "aws-node"},
        "reason": "MissingIAMPermissions",
        "action": "ec2:CreateNetworkInterface",
        "note": "no permission",
        "type": "Warning",
    }
    good(kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(event)))
    listed = good(kubectl("get", "events", "-n", "kube-system", "--no-headers"))
    assert words(listed)[0][1:] == ["Warning", "MissingIAMPermissions", "aws-node", "no", "permission"]
    events = json.loads(good(kubectl("get", "events", "-n", "kube-system", "-o", "json")))["items"]
    assert events[0]["involvedObject"]["name"] == "aws-node"


def test_a_long_list_comes_in_chunks(sim, kubectl):
    for number in range(5):
        sim.ctl("kube", "pod", f"web-{number}", "--node", "node-1")
    assert len(good(kubectl("get", "pods", "--chunk-size", "2", "-o", "name")).splitlines()) == 5
    assert sim.ctl("kube", "counts")["GET pods"] == 3


def test_errors_are_kubectls_own(kubectl):
    for arguments, text in [
        (("get", "node", "node-9"), 'Error from server (NotFound): nodes "node-9" not found'),
        (("get", "deployments"), 'error: the server doesn\'t have a resource type "deployments"'),
        (("get", "pods", "--field-selector", "spec.nodename=x"), "field label not supported: spec.nodename"),
        (("delete", "pod", "web-9"), 'Error from server (NotFound): pods "web-9" not found'),
        (("get", "--raw", "/api/v1/secrets"), "Error from server (NotFound)"),
    ]:
        done = kubectl(*arguments)
        assert done.returncode == 1 and text in done.stderr, done.stderr


def test_an_api_server_that_refuses_is_seen_and_comes_back(sim, kubectl):
    good(kubectl("get", "nodes"))
    sim.ctl("kube", "refuse")
    done = kubectl("get", "nodes")
    assert done.returncode == 1 and "was refused - did you specify the right host or port?" in done.stderr
    sim.ctl("kube", "serve")
    good(kubectl("get", "nodes"))


def test_a_node_reaches_the_cluster_by_its_kubeconfig(start, request):
    up = start("up")
    script = "set -a; . /run/vpc-sim/environment; exec \"$0\" --cache-dir /run/kubectl get nodes -o name"
    for node in ("node-1", "node-2"):
        done = up.run("exec", node, "--", "sh", "-c", script, request.config.getoption("--kubectl"))
        assert (done.returncode, done.stdout) == (0, "node/node-1\nnode/node-2\n"), done.stderr
