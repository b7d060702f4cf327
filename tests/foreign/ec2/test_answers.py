"""Every action that vpc-sim has: called by boto3, judged by botocore's model, and what came back is what was asked for.

Which actions there are is asked of vpc-sim itself, with botocore's list of names: an action that is added without an example here
fails the suite.
"""

import datetime
import ipaddress

from conftest import attach, create, eni_of, subnet_of

V4 = ipaddress.IPv4Network("10.0.1.0/24")


def in_subnet(addresses):
    return all(ipaddress.IPv4Address(address) in V4 for address in addresses)


def describe_network_interfaces(ec2, sim):
    eni = create(ec2, Description="one of ours", TagSpecifications=[tagged({"k": "v"})], SecondaryPrivateIpAddressCount=2)
    tie = attach(ec2, sim, eni)
    ec2.assign_ipv6_addresses(NetworkInterfaceId=eni["NetworkInterfaceId"], Ipv6AddressCount=1)
    seen = eni_of(ec2, eni["NetworkInterfaceId"])
    attachment = seen["Attachment"]
    assert attachment["AttachmentId"] == tie and attachment["Status"] == "attached"
    assert (attachment["DeviceIndex"], attachment["NetworkCardIndex"]) == (1, 0)
    assert attachment["InstanceId"] == sim.instance("node-1") and attachment["DeleteOnTermination"] is False
    age = datetime.datetime.now(datetime.timezone.utc) - attachment["AttachTime"]
    assert abs(age) < datetime.timedelta(minutes=1)
    assert (seen["Status"], seen["InterfaceType"], seen["SourceDestCheck"]) == ("in-use", "interface", True)
    assert seen["TagSet"] == [{"Key": "k", "Value": "v"}] and seen["Description"] == "one of ours"
    addresses = [one["PrivateIpAddress"] for one in seen["PrivateIpAddresses"]]
    assert len(addresses) == 3 and addresses[0] == seen["PrivateIpAddress"] and in_subnet(addresses)
    assert [one["Primary"] for one in seen["PrivateIpAddresses"]] == [True, False, False]
    assert len(seen["Ipv6Addresses"]) == 1 and seen["Groups"][0]["GroupName"] == "default"


def describe_instances(ec2, sim):
    everything = ec2.describe_instances()["Reservations"]
    instances = [instance for reservation in everything for instance in reservation["Instances"]]
    assert len(everything) == len(instances) == len(sim.ready["nodes"])
    found = ec2.describe_instances(InstanceIds=[sim.instance("node-4")])["Reservations"][0]["Instances"][0]
    assert found["InstanceType"] == "c5.metal" and found["State"] == {"Code": 16, "Name": "running"}
    assert found["Placement"]["AvailabilityZone"] == "us-east-1b"
    primary = found["NetworkInterfaces"][0]
    assert primary["Attachment"]["DeviceIndex"] == 0 and primary["Attachment"]["NetworkCardIndex"] == 0
    assert len(primary["Ipv4Prefixes"]) == 1 and found["PrivateIpAddress"] == primary["PrivateIpAddress"]


def describe_instance_types(ec2, _):
    names = ["m5.large", "t2.micro", "c5.metal", "p5.48xlarge", "c1.medium"]
    kinds = {kind["InstanceType"]: kind for kind in ec2.describe_instance_types(InstanceTypes=names)["InstanceTypes"]}
    assert sorted(kinds) == sorted(names)
    large = kinds["m5.large"]
    assert large["VCpuInfo"]["DefaultVCpus"] == 2 and large["Hypervisor"] == "nitro" and large["BareMetal"] is False
    network = large["NetworkInfo"]
    assert (network["MaximumNetworkInterfaces"], network["Ipv4AddressesPerInterface"]) == (3, 10)
    assert (network["MaximumNetworkCards"], network["DefaultNetworkCardIndex"]) == (1, 0)
    assert kinds["t2.micro"]["Hypervisor"] == "xen" and "Hypervisor" not in kinds["c5.metal"]
    assert kinds["c1.medium"]["NetworkInfo"]["Ipv6Supported"] is False
    cards = kinds["p5.48xlarge"]["NetworkInfo"]["NetworkCards"]
    assert len(cards) == 32 and {card["MaximumNetworkInterfaces"] for card in cards} == {2}
    assert [card["NetworkCardIndex"] for card in cards] == list(range(32))


def describe_subnets(ec2, _):
    assert len(ec2.describe_subnets()["Subnets"]) == 12
    found = subnet_of(ec2, "main")
    assert found["AvailableIpAddressCount"] == 251 - 4 and found["CidrBlock"] == "10.0.1.0/24"
    assert found["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "2001:db8::/64"
    assert {"Key": "role", "Value": "pods"} in found["Tags"]


def describe_vpcs(ec2, _):
    (found,) = ec2.describe_vpcs()["Vpcs"]
    assert found["CidrBlock"] == "10.0.0.0/16" == found["CidrBlockAssociationSet"][0]["CidrBlock"]
    assert found["Ipv6CidrBlockAssociationSet"][0]["Ipv6CidrBlock"] == "2001:db8::/56"


def describe_security_groups(ec2, _):
    (found,) = ec2.describe_security_groups()["SecurityGroups"]
    assert found["GroupName"] == "default" and found["IpPermissions"][0]["IpRanges"] == [{"CidrIp": "0.0.0.0/0"}]


def create_network_interface(ec2, _):
    before = subnet_of(ec2, "main")["AvailableIpAddressCount"]
    eni = create(ec2, Ipv4PrefixCount=2, Description="d", TagSpecifications=[tagged({"a": "1", "b": ""})])
    prefixes = [ipaddress.IPv4Network(one["Ipv4Prefix"]) for one in eni["Ipv4Prefixes"]]
    assert len(prefixes) == 2 and all(prefix.prefixlen == 28 and prefix.subnet_of(V4) for prefix in prefixes)
    assert eni["Status"] == "available" and "Attachment" not in eni and eni["MacAddress"].count(":") == 5
    assert eni["TagSet"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}]
    assert subnet_of(ec2, "main")["AvailableIpAddressCount"] == before - 33


def attach_network_interface(ec2, sim):
    eni = create(ec2)
    tie = attach(ec2, sim, eni, node="node-5", device=1, card=7)
    assert tie.startswith("eni-attach-")
    attachment = eni_of(ec2, eni["NetworkInterfaceId"])["Attachment"]
    assert (attachment["DeviceIndex"], attachment["NetworkCardIndex"]) == (1, 7)


def detach_network_interface(ec2, sim):
    eni = create(ec2)
    ec2.detach_network_interface(AttachmentId=attach(ec2, sim, eni))
    after = eni_of(ec2, eni["NetworkInterfaceId"])
    assert after["Status"] == "available" and "Attachment" not in after


def delete_network_interface(ec2, _):
    eni = create(ec2)
    ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
    left = ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert eni["NetworkInterfaceId"] not in [one["NetworkInterfaceId"] for one in left]


def modify_network_interface_attribute(ec2, sim):
    eni = create(ec2)
    tie, eni_id = attach(ec2, sim, eni), eni["NetworkInterfaceId"]
    change = ec2.modify_network_interface_attribute
    change(NetworkInterfaceId=eni_id, Attachment={"AttachmentId": tie, "DeleteOnTermination": True})
    change(NetworkInterfaceId=eni_id, SourceDestCheck={"Value": False})
    change(NetworkInterfaceId=eni_id, Description={"Value": "changed & <so>"})
    change(NetworkInterfaceId=eni_id, Groups=[eni["Groups"][0]["GroupId"]])
    after = eni_of(ec2, eni_id)
    assert after["Attachment"]["DeleteOnTermination"] is True and after["SourceDestCheck"] is False
    assert after["Description"] == "changed & <so>"


def assign_private_ip_addresses(ec2, _):
    eni_id = create(ec2, SecondaryPrivateIpAddressCount=1)["NetworkInterfaceId"]
    got = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=3)
    new = [one["PrivateIpAddress"] for one in got["AssignedPrivateIpAddresses"]]
    assert len(new) == 3 and in_subnet(new) and got["NetworkInterfaceId"] == eni_id
    got = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4PrefixCount=1)
    assert len(got["AssignedIpv4Prefixes"]) == 1 and got["AssignedPrivateIpAddresses"] == []
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, PrivateIpAddresses=["10.0.1.200"])
    ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4Prefixes=["10.0.1.224/28"])
    held = eni_of(ec2, eni_id)
    assert "10.0.1.200" in [one["PrivateIpAddress"] for one in held["PrivateIpAddresses"]]
    assert {"Ipv4Prefix": "10.0.1.224/28"} in held["Ipv4Prefixes"] and len(held["PrivateIpAddresses"]) == 6
    other = create(ec2)["NetworkInterfaceId"]
    take = {"NetworkInterfaceId": other, "PrivateIpAddresses": ["10.0.1.200"], "AllowReassignment": True}
    ec2.assign_private_ip_addresses(**take)
    assert len(eni_of(ec2, eni_id)["PrivateIpAddresses"]) == 5


def unassign_private_ip_addresses(ec2, _):
    eni = create(ec2, Ipv4PrefixCount=1)
    eni_id, prefix = eni["NetworkInterfaceId"], eni["Ipv4Prefixes"][0]["Ipv4Prefix"]
    got = ec2.assign_private_ip_addresses(NetworkInterfaceId=eni_id, SecondaryPrivateIpAddressCount=2)
    address = got["AssignedPrivateIpAddresses"][0]["PrivateIpAddress"]
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni_id, PrivateIpAddresses=[address])
    ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni_id, Ipv4Prefixes=[prefix])
    left = eni_of(ec2, eni_id)
    assert address not in [one["PrivateIpAddress"] for one in left["PrivateIpAddresses"]]
    assert len(left["PrivateIpAddresses"]) == 2 and not left.get("Ipv4Prefixes")


def assign_ipv6_addresses(ec2, _):
    eni_id = create(ec2)["NetworkInterfaceId"]
    got = ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6AddressCount=2)
    assert len(got["AssignedIpv6Addresses"]) == 2 and got["NetworkInterfaceId"] == eni_id
    got = ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6PrefixCount=1)
    assert ipaddress.IPv6Network(got["AssignedIpv6Prefixes"][0]).prefixlen == 80
    ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Addresses=["2001:db8::77"])
    seen = eni_of(ec2, eni_id)
    assert "2001:db8::77" in [one["Ipv6Address"] for one in seen["Ipv6Addresses"]] and len(seen["Ipv6Prefixes"]) == 1


def unassign_ipv6_addresses(ec2, _):
    eni_id = create(ec2)["NetworkInterfaceId"]
    addresses = ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6AddressCount=2)["AssignedIpv6Addresses"]
    prefixes = ec2.assign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6PrefixCount=1)["AssignedIpv6Prefixes"]
    got = ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Addresses=addresses[:1])
    assert got["UnassignedIpv6Addresses"] == addresses[:1]
    got = ec2.unassign_ipv6_addresses(NetworkInterfaceId=eni_id, Ipv6Prefixes=prefixes)
    assert got["UnassignedIpv6Prefixes"] == prefixes
    assert [one["Ipv6Address"] for one in eni_of(ec2, eni_id)["Ipv6Addresses"]] == addresses[1:]


def create_tags(ec2, sim):
    eni_id = create(ec2)["NetworkInterfaceId"]
    resources = [eni_id, sim.instance("node-1"), subnet_of(ec2, "main")["SubnetId"]]
    ec2.create_tags(Resources=resources, Tags=[{"Key": "new", "Value": "1"}, {"Key": "role", "Value": "other"}])
    tags = {"Key": "new", "Value": "1"}
    assert tags in eni_of(ec2, eni_id)["TagSet"] and tags in subnet_of(ec2, "main")["Tags"]
    instance = ec2.describe_instances(InstanceIds=resources[1:2])["Reservations"][0]["Instances"][0]
    assert tags in instance["Tags"] and {"Key": "team", "Value": "a"} in instance["Tags"]


def tagged(tags):
    return {"ResourceType": "network-interface", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}


EXAMPLES = {
    example.__name__.title().replace("_", "").replace("Ipaddresses", "IpAddresses"): example
    for example in [
        describe_network_interfaces,
        describe_instances,
        describe_instance_types,
        describe_subnets,
        describe_vpcs,
        describe_security_groups,
        create_network_interface,
        attach_network_interface,
        detach_network_interface,
        delete_network_interface,
        modify_network_interface_attribute,
        assign_private_ip_addresses,
        unassign_private_ip_addresses,
        assign_ipv6_addresses,
        unassign_ipv6_addresses,
        create_tags,
    ]
}


def pytest_generate_tests(metafunc):
    if "action" in metafunc.fixturenames:
        metafunc.parametrize("action", list(EXAMPLES))


def test_the_action_does_and_answers_what_the_model_says(ec2, sim, action):
    EXAMPLES[action](ec2, sim)
    assert sim.ctl("counts")["actions"][action]["accepted"] > 0, "the example calls its action"


def test_every_action_of_vpc_sim_has_an_example(sim, service_model):
    known = [name for name in service_model.operation_names if b"InvalidAction" not in sim.raw(Action=name)[1]]
    assert sorted(known) == sorted(EXAMPLES)
