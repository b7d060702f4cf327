"""What boto3 sends is what is stored beside vpc-sim's decoder, whose own tests compare it with what the SDK for Rust sends.

A new version of botocore that spells a request in another way is noticed here. `--write-bodies` stores what it sends.
"""

import urllib.parse
from pathlib import Path

import boto3
import botocore

from conftest import REGION

STORED = Path(__file__).parents[2] / "vpc-sim/src/ec2/golden/boto3.txt"

ENI, INSTANCE, TIE = "eni-0123456789abcdef0", "i-0123456789abcdef0", "eni-attach-0123456789abcdef0"
SUBNET, VPC, GROUP = "subnet-0123456789abcdef0", "vpc-0123456789abcdef0", "sg-0123456789abcdef0"
TAGS = [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": INSTANCE}, {"Key": "empty & odd=", "Value": ""}]

CASES = {
    "describe-enis-of-an-instance": (
        "describe_network_interfaces",
        {"Filters": [{"Name": "attachment.instance-id", "Values": [INSTANCE, "i-1"]}], "MaxResults": 1000},
    ),
    "describe-enis-by-id": ("describe_network_interfaces", {"NetworkInterfaceIds": [ENI, "eni-1"]}),
    "describe-enis-next-page": (
        "describe_network_interfaces",
        {"Filters": [{"Name": "tag:a b/c", "Values": ["x*?"]}], "MaxResults": 5, "NextToken": "after:eni-1+/="},
    ),
    "describe-instances": ("describe_instances", {"InstanceIds": [INSTANCE]}),
    "describe-types": ("describe_instance_types", {"InstanceTypes": ["m5.large", "t3.nano"]}),
    "describe-subnets": (
        "describe_subnets",
        {"Filters": [{"Name": "vpc-id", "Values": [VPC]}, {"Name": "availability-zone", "Values": ["us-east-1a"]}]},
    ),
    "describe-vpcs": ("describe_vpcs", {"VpcIds": [VPC]}),
    "describe-groups": ("describe_security_groups", {"GroupIds": [GROUP]}),
    "create-with-count": (
        "create_network_interface",
        {
            "SubnetId": SUBNET,
            "Description": "aws-K8S-i-0 (ä+b)",
            "Groups": [GROUP, "sg-1"],
            "SecondaryPrivateIpAddressCount": 9,
            "TagSpecifications": [{"ResourceType": "network-interface", "Tags": TAGS}],
            "ClientToken": "token",
        },
    ),
    "create-with-prefix-count": (
        "create_network_interface",
        {"SubnetId": SUBNET, "Ipv4PrefixCount": 2, "InterfaceType": "efa", "ClientToken": "token"},
    ),
    "create-with-prefixes": (
        "create_network_interface",
        {
            "SubnetId": SUBNET,
            "PrivateIpAddress": "10.0.1.9",
            "Ipv4Prefixes": [{"Ipv4Prefix": "10.0.1.16/28"}, {"Ipv4Prefix": "10.0.1.32/28"}],
            "ClientToken": "token",
        },
    ),
    "create-with-addresses": (
        "create_network_interface",
        {
            "SubnetId": SUBNET,
            "PrivateIpAddresses": [
                {"PrivateIpAddress": "10.0.1.9", "Primary": True},
                {"PrivateIpAddress": "10.0.1.10", "Primary": False},
            ],
            "Ipv6Addresses": [{"Ipv6Address": "2001:db8::9"}],
            "ClientToken": "token",
        },
    ),
    "create-with-ipv6-prefixes": (
        "create_network_interface",
        {"SubnetId": SUBNET, "Ipv6Prefixes": [{"Ipv6Prefix": "2001:db8:0:0:9::/80"}], "ClientToken": "token"},
    ),
    "attach": (
        "attach_network_interface",
        {"NetworkInterfaceId": ENI, "InstanceId": INSTANCE, "DeviceIndex": 1, "NetworkCardIndex": 0},
    ),
    "detach": ("detach_network_interface", {"AttachmentId": TIE}),
    "detach-by-force": ("detach_network_interface", {"AttachmentId": TIE, "Force": True}),
    "delete": ("delete_network_interface", {"NetworkInterfaceId": ENI}),
    "modify-termination": (
        "modify_network_interface_attribute",
        {"NetworkInterfaceId": ENI, "Attachment": {"AttachmentId": TIE, "DeleteOnTermination": True}},
    ),
    "modify-groups": ("modify_network_interface_attribute", {"NetworkInterfaceId": ENI, "Groups": [GROUP, "sg-1"]}),
    "modify-check": ("modify_network_interface_attribute", {"NetworkInterfaceId": ENI, "SourceDestCheck": {"Value": False}}),
    "modify-description": ("modify_network_interface_attribute", {"NetworkInterfaceId": ENI, "Description": {"Value": ""}}),
    "assign-count": ("assign_private_ip_addresses", {"NetworkInterfaceId": ENI, "SecondaryPrivateIpAddressCount": 5}),
    "assign-addresses": (
        "assign_private_ip_addresses",
        {"NetworkInterfaceId": ENI, "PrivateIpAddresses": ["10.0.1.9", "10.0.1.10"], "AllowReassignment": True},
    ),
    "assign-prefix-count": ("assign_private_ip_addresses", {"NetworkInterfaceId": ENI, "Ipv4PrefixCount": 1}),
    "assign-prefixes": ("assign_private_ip_addresses", {"NetworkInterfaceId": ENI, "Ipv4Prefixes": ["10.0.1.16/28"]}),
    "unassign": (
        "unassign_private_ip_addresses",
        {"NetworkInterfaceId": ENI, "PrivateIpAddresses": ["10.0.1.9"], "Ipv4Prefixes": ["10.0.1.16/28"]},
    ),
    "assign-ipv6-count": ("assign_ipv6_addresses", {"NetworkInterfaceId": ENI, "Ipv6AddressCount": 2}),
    "assign-ipv6-addresses": ("assign_ipv6_addresses", {"NetworkInterfaceId": ENI, "Ipv6Addresses": ["2001:db8::9"]}),
    "assign-ipv6-prefixes": ("assign_ipv6_addresses", {"NetworkInterfaceId": ENI, "Ipv6Prefixes": ["2001:db8:0:0:9::/80"]}),
    "unassign-ipv6": (
        "unassign_ipv6_addresses",
        {"NetworkInterfaceId": ENI, "Ipv6Addresses": ["2001:db8::9"], "Ipv6Prefixes": ["2001:db8:0:0:9::/80"]},
    ),
    "tag": ("create_tags", {"Resources": [ENI, SUBNET], "Tags": TAGS}),
}


class Enough(Exception):
    """The body is known; nothing is sent."""


def bodies(botocore_session):
    client = boto3.Session(botocore_session=botocore_session).client("ec2", region_name=REGION, endpoint_url="http://127.0.0.1:9")
    caught = []

    def catch(request, **_):
        caught.append(request.body if isinstance(request.body, str) else request.body.decode())
        raise Enough

    client.meta.events.register("before-send.ec2", catch)
    for call, parameters in CASES.values():
        try:
            getattr(client, call)(**parameters)
        except Enough:
            pass
    return dict(zip(CASES, caught, strict=True))


def stored():
    lines = [line for line in STORED.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split(" ") for line in lines)


def test_boto3_sends_the_stored_bodies(botocore_session, request):
    sent = bodies(botocore_session)
    if request.config.getoption("--write-bodies"):
        head = f"# Bodies as botocore {botocore.__version__} sends them; tests/foreign/ec2/test_requests.py has the calls.\n"
        STORED.write_text(head + "".join(f"{name} {body}\n" for name, body in sent.items()))
    known = {name: sorted(urllib.parse.parse_qsl(body, keep_blank_values=True)) for name, body in stored().items()}
    assert {name: sorted(urllib.parse.parse_qsl(body, keep_blank_values=True)) for name, body in sent.items()} == known
