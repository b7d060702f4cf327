"""Paging, filters and waiters, driven by botocore's own paginators and waiters."""

import re

import pytest

from conftest import attach, create, refused, subnet_of

FILTERED = {
    "describe_network_interfaces": "NetworkInterfaces",
    "describe_instances": "Reservations",
    "describe_instance_types": "InstanceTypes",
    "describe_subnets": "Subnets",
    "describe_vpcs": "Vpcs",
    "describe_security_groups": "SecurityGroups",
}

# What tools of the network plugin filter by: vpc-sim must have these, whatever else it lacks.
NEEDED = {
    "describe_network_interfaces": [
        "attachment.instance-id",
        "attachment.status",
        "availability-zone",
        "description",
        "group-id",
        "interface-type",
        "mac-address",
        "network-interface-id",
        "status",
        "subnet-id",
        "tag-key",
        "tag:k",
        "vpc-id",
    ],
    "describe_instances": ["instance-id", "instance-state-name", "subnet-id", "tag-key", "tag:team", "vpc-id"],
    "describe_instance_types": ["instance-type", "hypervisor", "bare-metal", "vcpu-info.default-vcpus"],
    "describe_subnets": ["availability-zone", "cidr-block", "subnet-id", "tag-key", "tag:role", "vpc-id"],
    "describe_vpcs": ["cidr", "tag-key", "vpc-id"],
    "describe_security_groups": ["group-id", "group-name", "tag-key", "vpc-id"],
}


def by(name, *values):
    return {"Name": name, "Values": list(values)}


def operation_of(call):
    return "".join(word.title() for word in call.split("_"))


def documented_filters(service_model, call):
    """Names of filters in the reference that botocore carries."""
    text = service_model.operation_model(operation_of(call)).input_shape.members["Filters"].documentation
    names = set(re.findall(r"<p>\s*<code>([^<]*)</code>", text)) | set(re.findall(r"can also use <code>([^<]*)</code>", text))
    return {name for name in names if not name.startswith("tag:") and name != "tag"}


def accepts(ec2, call, name):
    from botocore.exceptions import ClientError

    try:
        getattr(ec2, call)(Filters=[by(name, "x")])
    except ClientError as error:
        assert error.response["Error"]["Code"] == "InvalidParameterValue", error
        assert error.response["Error"]["Message"] == f"The filter '{name}' is invalid"
        return False
    return True


@pytest.mark.parametrize("call", FILTERED)
def test_filters_are_those_of_the_reference_and_no_others(ec2, sim, service_model, call):
    missing = [name for name in NEEDED[call] if not accepts(ec2, call, name)]
    assert missing == []
    everywhere = {name for other in FILTERED for name in documented_filters(service_model, other)}
    documented = documented_filters(service_model, call)
    invented = [name for name in sorted(everywhere - documented) if accepts(ec2, call, name)]
    assert invented == [], "names of other actions' filters"


@pytest.mark.parametrize("call", FILTERED)
def test_an_unknown_filter_is_refused_also_where_nothing_matches(ec2, call):
    nothing = by("instance-type" if "types" in call else "vpc-id", "no-such-thing")
    assert getattr(ec2, call)(Filters=[nothing])[FILTERED[call]] == []
    refusal = refused(getattr(ec2, call), Filters=[nothing, by("vpc-idd", "x")])
    assert (refusal.code, refusal.status) == ("InvalidParameterValue", 400)


def values_of_an_eni(eni):
    """What each filter must match on this attached ENI."""
    tie = eni["Attachment"]
    return {
        "addresses.private-ip-address": eni["PrivateIpAddresses"][1]["PrivateIpAddress"],
        "attachment.attachment-id": tie["AttachmentId"],
        "attachment.delete-on-termination": "false",
        "attachment.device-index": "1",
        "attachment.instance-id": tie["InstanceId"],
        "attachment.status": "attached",
        "availability-zone": "us-east-1a",
        "description": "aws-K8S-i-*",
        "group-id": eni["Groups"][0]["GroupId"],
        "interface-type": "interface",
        "mac-address": eni["MacAddress"],
        "network-interface-id": eni["NetworkInterfaceId"],
        "private-ip-address": eni["PrivateIpAddress"],
        "source-dest-check": "true",
        "status": "in-use",
        "subnet-id": eni["SubnetId"],
        "tag-key": "node.k8s.amazonaws.com/instance_id",
        "tag:node.k8s.amazonaws.com/instance_id": "i-?23*",
        "vpc-id": eni["VpcId"],
    }


@pytest.fixture
def marked(ec2, sim):
    tags = [{"Key": "node.k8s.amazonaws.com/instance_id", "Value": "i-0234"}]
    eni = create(
        ec2,
        SecondaryPrivateIpAddressCount=1,
        Description="aws-K8S-i-0234",
        TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}],
    )
    attach(ec2, sim, eni)
    found = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni["NetworkInterfaceId"]])
    return found["NetworkInterfaces"][0]


def test_each_filter_of_enis_matches_and_excludes(ec2, service_model, marked):
    def found(*filters):
        seen = ec2.describe_network_interfaces(Filters=list(filters))["NetworkInterfaces"]
        return marked["NetworkInterfaceId"] in [eni["NetworkInterfaceId"] for eni in seen]

    values = values_of_an_eni(marked)
    for name, value in values.items():
        assert found(by(name, "other", value)), name
        if not name == "tag-key":
            assert not found(by(name, "other")), name
            assert not found(by(name, value.upper() if value != value.upper() else "x")), f"{name}: letters have a case"
    assert found(*(by(name, value) for name, value in values.items())), "all at once"
    accepted = {name for name in documented_filters(service_model, "describe_network_interfaces") if accepts(ec2, "describe_network_interfaces", name)}
    assert accepted == {name for name in values if not name.startswith("tag:")}, "no filter is accepted untested"


def test_filters_of_the_other_describes_match(ec2, sim):
    subnet = subnet_of(ec2, "main")
    node = sim.instance("node-1")

    def instances(*filters):
        reservations = ec2.describe_instances(Filters=list(filters))["Reservations"]
        return [instance["InstanceId"] for reservation in reservations for instance in reservation["Instances"]]

    primary = ec2.describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]["NetworkInterfaces"][0]
    for name, value in [
        ("instance-id", node),
        ("instance-type", "m5.*"),
        ("instance-state-name", "running"),
        ("subnet-id", subnet["SubnetId"]),
        ("vpc-id", subnet["VpcId"]),
        ("availability-zone", "us-east-1a"),
        ("private-ip-address", "10.0.1.10"),
        ("network-interface.network-interface-id", primary["NetworkInterfaceId"]),
        ("tag:team", "a"),
        ("tag-key", "team"),
    ]:
        assert node in instances(by(name, value)), name
        assert node not in instances(by(name, "other")), name
    for name, value in [
        ("availability-zone", "us-east-1a"),
        ("availabilityZone", "us-east-1a"),
        ("available-ip-address-count", str(subnet["AvailableIpAddressCount"])),
        ("cidr-block", "10.0.1.0/24"),
        ("state", "available"),
        ("tag:role", "pods"),
    ]:
        found = ec2.describe_subnets(Filters=[by(name, value)])["Subnets"]
        assert subnet["SubnetId"] in [one["SubnetId"] for one in found], name
    assert len(ec2.describe_vpcs(Filters=[by("cidr", "10.0.0.0/16"), by("is-default", "false")])["Vpcs"]) == 1
    assert len(ec2.describe_security_groups(Filters=[by("group-name", "default")])["SecurityGroups"]) == 1
    kinds = ec2.describe_instance_types(Filters=[by("instance-type", "m5.*"), by("vcpu-info.default-vcpus", "2")])
    assert [kind["InstanceType"] for kind in kinds["InstanceTypes"]] == ["m5.large"]


@pytest.fixture
def crowd(ec2):
    """More than two pages of ENIs."""
    subnet = subnet_of(ec2, "more-10")["SubnetId"]
    return [ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"] for _ in range(12)]


@pytest.mark.parametrize("call", FILTERED)
def test_a_paginator_sees_everything_once(ec2, crowd, call):
    key = {"describe_instances": "ReservationId", "describe_instance_types": "InstanceType"}.get(call)
    key = key or operation_of(call).removeprefix("Describe").removesuffix("s").replace("SecurityGroup", "Group") + "Id"
    pages = list(ec2.get_paginator(call).paginate(PaginationConfig={"PageSize": 5}))
    names = [item[key] for page in pages for item in page[FILTERED[call]]]
    assert len(names) == len(set(names))
    assert all(len(page[FILTERED[call]]) == 5 for page in pages[:-1])
    assert all("NextToken" in page for page in pages[:-1]) and not pages[-1].get("NextToken")
    if call == "describe_instance_types":
        assert len(names) > 1400
    else:
        assert names == [item[key] for item in getattr(ec2, call)()[FILTERED[call]]]
    if call == "describe_network_interfaces":
        assert len(pages) == 4 and set(crowd) < set(names)


def test_pages_shift_not_when_items_go(ec2, crowd):
    first = ec2.describe_network_interfaces(MaxResults=5)
    for eni in first["NetworkInterfaces"]:
        if eni["NetworkInterfaceId"] in crowd:
            ec2.delete_network_interface(NetworkInterfaceId=eni["NetworkInterfaceId"])
    second = ec2.describe_network_interfaces(MaxResults=5, NextToken=first["NextToken"])
    ids = [eni["NetworkInterfaceId"] for page in (first, second) for eni in page["NetworkInterfaces"]]
    assert len(set(ids)) == 10 and ids == sorted(ids)


def test_a_filter_and_pages_go_together(ec2, crowd):
    subnet = subnet_of(ec2, "more-10")["SubnetId"]
    pages = ec2.get_paginator("describe_network_interfaces").paginate(
        Filters=[by("subnet-id", subnet), by("status", "available")], PaginationConfig={"PageSize": 5}
    )
    found = [eni["NetworkInterfaceId"] for page in pages for eni in page["NetworkInterfaces"]]
    assert sorted(found) == sorted(crowd)


@pytest.mark.parametrize("call", FILTERED)
def test_a_bad_token_and_a_bad_size_are_refused(ec2_unchecked, call):
    describe = getattr(ec2_unchecked, call)
    assert refused(describe, NextToken="nonsense", MaxResults=5).code == "InvalidNextToken"
    for size in (0, 4, 101 if "types" in call else 1001):
        assert refused(describe, MaxResults=size).code == "InvalidParameterValue", size


def test_ids_and_a_size_exclude_each_other(ec2, sim, marked):
    for call, ids in [
        ("describe_network_interfaces", {"NetworkInterfaceIds": [marked["NetworkInterfaceId"]]}),
        ("describe_instances", {"InstanceIds": [sim.instance("node-1")]}),
        ("describe_instance_types", {"InstanceTypes": ["m5.large"]}),
        ("describe_subnets", {"SubnetIds": [marked["SubnetId"]]}),
    ]:
        assert refused(getattr(ec2, call), MaxResults=5, **ids).code == "InvalidParameterCombination", call


def test_the_waiter_sees_an_eni_become_available(ec2, sim, marked):
    sim.ctl("timing", "--detach", 1500)
    eni_id = marked["NetworkInterfaceId"]
    ec2.detach_network_interface(AttachmentId=marked["Attachment"]["AttachmentId"])
    before = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"][0]
    assert before["Attachment"]["Status"] == "detaching" and before["Status"] != "available"
    waiter = ec2.get_waiter("network_interface_available")
    waiter.wait(NetworkInterfaceIds=[eni_id], WaiterConfig={"Delay": 1, "MaxAttempts": 10})
    after = ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"][0]
    assert after["Status"] == "available" and "Attachment" not in after


def test_the_waiter_gives_up_on_an_eni_that_is_gone(ec2):
    from botocore.exceptions import WaiterError

    waiter = ec2.get_waiter("network_interface_available")
    with pytest.raises(WaiterError, match="InvalidNetworkInterfaceID.NotFound|terminal failure"):
        waiter.wait(NetworkInterfaceIds=["eni-0123456789abcdef0"], WaiterConfig={"Delay": 1, "MaxAttempts": 2})
