"""The aws command, end to end: arguments, output, exit codes, error text."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ENVIRONMENT

# The command stands beside the interpreter that runs this suite.
AWS = Path(sys.executable).with_name("aws")


@pytest.fixture
def aws(sim):
    def run(*arguments):
        command = [AWS, "ec2", "--endpoint-url", sim.url, "--output", "json", *arguments]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)

    return run


def good(done):
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout) if done.stdout.strip() else None


def failed(done, operation, code):
    """Exit code of version 1 of awscli for what a service refuses, and its one line."""
    assert done.returncode == 255 and done.stdout == ""
    form = rf"An error occurred \({re.escape(code)}\) when calling the {operation} operation(?: \(reached .*\))?: (.*)"
    text = re.search(form, done.stderr)
    assert text, done.stderr
    return text.group(1)


def test_an_eni_from_create_to_delete(aws, sim):
    subnet = good(aws("describe-subnets", "--filters", "Name=tag:Name,Values=main", "--query", "Subnets[0].SubnetId"))
    tags = "ResourceType=network-interface,Tags=[{Key=team,Value=a b}]"
    eni = good(
        aws("create-network-interface", "--subnet-id", subnet, "--description", "by hand", "--tag-specifications", tags)
    )["NetworkInterface"]
    eni_id = eni["NetworkInterfaceId"]
    got = good(aws("assign-private-ip-addresses", "--network-interface-id", eni_id, "--secondary-private-ip-address-count", "2"))
    addresses = [one["PrivateIpAddress"] for one in got["AssignedPrivateIpAddresses"]]
    where = ("--instance-id", sim.instance("node-1"), "--device-index", "1")
    tie = good(aws("attach-network-interface", "--network-interface-id", eni_id, *where))["AttachmentId"]
    shown = good(
        aws(
            "describe-network-interfaces",
            "--filters",
            f"Name=attachment.instance-id,Values={sim.instance('node-1')}",
            "Name=tag:team,Values=a b",
            "--query",
            "NetworkInterfaces[].{id:NetworkInterfaceId,ips:PrivateIpAddresses[?Primary==`false`].PrivateIpAddress,"
            "status:Status,device:Attachment.DeviceIndex}",
        )
    )
    assert shown == [{"id": eni_id, "ips": addresses, "status": "in-use", "device": 1}]
    left = ("--private-ip-addresses", addresses[0])
    assert good(aws("unassign-private-ip-addresses", "--network-interface-id", eni_id, *left)) is None
    in_use = failed(aws("delete-network-interface", "--network-interface-id", eni_id), "DeleteNetworkInterface", "InvalidParameterValue")
    assert in_use == f"Network interface '{eni_id}' is currently in use."
    assert good(aws("detach-network-interface", "--attachment-id", tie)) is None
    assert good(aws("wait", "network-interface-available", "--network-interface-ids", eni_id)) is None
    assert good(aws("delete-network-interface", "--network-interface-id", eni_id)) is None
    gone = aws("describe-network-interfaces", "--network-interface-ids", eni_id)
    text = failed(gone, "DescribeNetworkInterfaces", "InvalidNetworkInterfaceID.NotFound")
    assert text == f"The networkInterface ID '{eni_id}' does not exist"


def test_pages_by_max_items(aws):
    seen, token = [], []
    for _ in range(4):
        page = good(aws("describe-subnets", "--page-size", "5", "--max-items", "4", *token))
        seen += [subnet["SubnetId"] for subnet in page["Subnets"]]
        if "NextToken" not in page:
            break
        token = ["--starting-token", page["NextToken"]]
    assert len(seen) == len(set(seen)) == 12 and "NextToken" not in page


def test_errors_have_their_exit_codes(aws, sim):
    assert failed(aws("describe-subnets", "--dry-run"), "DescribeSubnets", "DryRunOperation")
    assert failed(aws("describe-vpcs", "--filters", "Name=nonsense,Values=x"), "DescribeVpcs", "InvalidParameterValue")
    sim.ctl("fault", "DescribeVpcs", "--code", "RequestLimitExceeded")
    assert failed(aws("describe-vpcs"), "DescribeVpcs", "RequestLimitExceeded") == "Request limit exceeded."
    sim.ctl("fault", "DescribeVpcs", "--code", "UnauthorizedOperation")
    assert "not authorized" in failed(aws("describe-vpcs"), "DescribeVpcs", "UnauthorizedOperation")


def test_a_table_for_people(aws):
    done = aws("describe-instances", "--output", "table", "--query", "Reservations[].Instances[].[InstanceId,InstanceType]")
    assert done.returncode == 0 and done.stdout.count("m5.large") == 2, done.stderr
