"""Every error code that clients of EC2's network API act on, with its status, reached the way it is reached in EC2.

Codes that this EC2 has no cause for (credentials, its own failures) come by fault injection.
"""

import pytest

from conftest import attach, create, refused, subnet_of

# Code, status, and what the message holds where clients read it.
INJECTED = [
    ("InternalError", 500),
    ("InternalFailure", 500),
    ("Unavailable", 503),
    ("ServiceUnavailable", 503),
    ("RequestLimitExceeded", 503),
    ("UnauthorizedOperation", 403),
    ("AuthFailure", 401),
    ("InvalidClientTokenId", 403),
    ("RequestExpired", 400),
    ("NetworkInterfaceLimitExceeded", 400),
    ("InvalidSecurityGroupID.NotFound", 400),
    ("InvalidPaginationToken", 400),
]

NOBODY = "0123456789abcdef0"


@pytest.mark.parametrize(("code", "status"), INJECTED)
def test_an_injected_code_arrives_once(ec2, sim, code, status):
    sim.ctl("fault", "DescribeSubnets", "--code", code)
    refusal = refused(ec2.describe_subnets)
    assert (refusal.code, refusal.status) == (code, status) and refusal.message
    ec2.describe_subnets()
    assert sim.ctl("counts")["actions"]["DescribeSubnets"]["refused"] == {code: 1}


def too_many_calls(ec2, sim):
    sim.ctl("throttle", "0.02")
    for _ in range(3):
        refusal = refused_after(ec2.describe_vpcs, 10)
    assert refusal.status == 503 and refusal.message == "Request limit exceeded."
    return refusal


def refused_after(call, calls):
    """Calls until a bucket is empty."""
    for _ in range(calls):
        try:
            call()
        except Exception:
            break
    return refused(call)


def dry_run(ec2, sim):
    refusal = refused(ec2.delete_network_interface, NetworkInterfaceId=create(ec2)["NetworkInterfaceId"], DryRun=True)
    assert refusal.status == 412
    return refusal


def missing_parameter(ec2, sim):
    return refused(ec2.create_network_interface)


def nothing_to_assign(ec2, sim):
    return refused(ec2.assign_private_ip_addresses, NetworkInterfaceId=create(ec2)["NetworkInterfaceId"])


def two_ways_to_ask(ec2, sim):
    subnet = subnet_of(ec2, "main")["SubnetId"]
    wish = {"SecondaryPrivateIpAddressCount": 1, "Ipv4PrefixCount": 1}
    return refused(ec2.create_network_interface, SubnetId=subnet, **wish)


def two_attributes(ec2, sim):
    change = {"SourceDestCheck": {"Value": True}, "Description": {"Value": "x"}}
    eni_id = create(ec2)["NetworkInterfaceId"]
    return refused(ec2.modify_network_interface_attribute, NetworkInterfaceId=eni_id, **change)


def another_zone(ec2, sim):
    eni = create(ec2, subnet="elsewhere")
    return refused_attach(ec2, sim, eni, "node-1", 1)


def delete_in_use(ec2, sim):
    eni = create(ec2)
    attach(ec2, sim, eni)
    refusal = refused(ec2.delete_network_interface, NetworkInterfaceId=eni["NetworkInterfaceId"])
    assert refusal.message == f"Network interface '{eni['NetworkInterfaceId']}' is currently in use."
    return refusal


def index_taken(ec2, sim):
    attach(ec2, sim, create(ec2))
    refusal = refused_attach(ec2, sim, create(ec2), "node-1", 1)
    node = sim.instance("node-1")
    assert refusal.message == f"Instance '{node}' already has an interface attached at device index '1'."
    return refusal


def no_prefix_free(ec2, sim):
    refusal = refused(ec2.create_network_interface, SubnetId=subnet_of(ec2, "tiny")["SubnetId"], Ipv4PrefixCount=1)
    assert "There aren't sufficient free Ipv4 addresses or prefixes" in refusal.message
    return refusal


def outside_the_subnet(ec2, sim):
    eni_id = create(ec2)["NetworkInterfaceId"]
    return refused(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni_id, PrivateIpAddresses=["10.0.9.9"])


def not_assigned(ec2, sim):
    eni_id = create(ec2)["NetworkInterfaceId"]
    return refused(ec2.unassign_private_ip_addresses, NetworkInterfaceId=eni_id, PrivateIpAddresses=["10.0.1.250"])


def the_primary(ec2, sim):
    eni = create(ec2)
    address = eni["PrivateIpAddress"]
    return refused(
        ec2.unassign_private_ip_addresses, NetworkInterfaceId=eni["NetworkInterfaceId"], PrivateIpAddresses=[address]
    )


def address_taken(ec2, sim):
    eni_id = create(ec2)["NetworkInterfaceId"]
    return refused(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni_id, PrivateIpAddresses=["10.0.1.10"])


def unknown_eni(ec2, sim):
    refusal = refused(ec2.describe_network_interfaces, NetworkInterfaceIds=[f"eni-{NOBODY}", "eni-0fedcba9876543210"])
    assert refusal.message == f"The networkInterface ID 'eni-{NOBODY}' does not exist", "the first one, quoted"
    return refusal


def malformed_eni(ec2, sim):
    return refused(ec2.delete_network_interface, NetworkInterfaceId="nonsense")


def attached_twice(ec2, sim):
    eni = create(ec2)
    attach(ec2, sim, eni)
    return refused_attach(ec2, sim, eni, "node-2", 1)


def unknown_attachment(ec2, sim):
    return refused(ec2.detach_network_interface, AttachmentId=f"eni-attach-{NOBODY}")


def malformed_attachment(ec2, sim):
    return refused(ec2.detach_network_interface, AttachmentId=create(ec2)["NetworkInterfaceId"])


def detached_twice(ec2, sim):
    sim.ctl("timing", "--detach", 60_000)
    tie = attach(ec2, sim, create(ec2))
    ec2.detach_network_interface(AttachmentId=tie)
    return refused(ec2.detach_network_interface, AttachmentId=tie)


def primary_detached(ec2, sim):
    instance = ec2.describe_instances(InstanceIds=[sim.instance("node-1")])["Reservations"][0]["Instances"][0]
    tie = instance["NetworkInterfaces"][0]["Attachment"]["AttachmentId"]
    refusal = refused(ec2.detach_network_interface, AttachmentId=tie)
    wanted = "The network interface at device index 0 and networkCard index 0 cannot be detached."
    assert refusal.message == wanted
    return refusal


def too_many_enis(ec2, sim):
    for device in (1, 2):
        attach(ec2, sim, create(ec2), "node-2", device)
    refusal = refused_attach(ec2, sim, create(ec2), "node-2", 3)
    assert refusal.message == "Interface count 4 exceeds the limit for t3.medium"
    return refusal


def too_many_addresses(ec2, sim):
    eni = create(ec2)
    attach(ec2, sim, eni, "node-2")
    refusal = refused(
        ec2.assign_private_ip_addresses, NetworkInterfaceId=eni["NetworkInterfaceId"], SecondaryPrivateIpAddressCount=6
    )
    assert refusal.message == "Number of private addresses will exceed limit."
    return refusal


def no_address_free(ec2, sim):
    subnet = subnet_of(ec2, "tiny")["SubnetId"]
    refusal = refused(ec2.create_network_interface, SubnetId=subnet, SecondaryPrivateIpAddressCount=11)
    assert refusal.message == "The specified subnet does not have enough free addresses to satisfy the request."
    assert subnet_of(ec2, "tiny")["AvailableIpAddressCount"] == 11, "all or nothing"
    return refusal


def no_block_free(ec2, sim):
    create(ec2, subnet="scattered", SecondaryPrivateIpAddressCount=7)
    subnet = subnet_of(ec2, "scattered")["SubnetId"]
    refusal = refused(ec2.create_network_interface, SubnetId=subnet, Ipv4PrefixCount=1)
    assert refusal.message == "The specified subnet does not have enough free cidr blocks to satisfy the request."
    return refusal


def too_many_groups(ec2, sim):
    groups = [f"sg-0123456789abcdef{n}" for n in range(6)]
    return refused(ec2.create_network_interface, SubnetId=subnet_of(ec2, "main")["SubnetId"], Groups=groups)


def unknown_group(ec2, sim):
    subnet = subnet_of(ec2, "main")["SubnetId"]
    return refused(ec2.create_network_interface, SubnetId=subnet, Groups=[f"sg-{NOBODY}"])


def malformed_group(ec2, sim):
    return refused(ec2.describe_security_groups, GroupIds=["default"])


def unknown_subnet(ec2, sim):
    return refused(ec2.create_network_interface, SubnetId=f"subnet-{NOBODY}")


def malformed_subnet(ec2, sim):
    return refused(ec2.describe_subnets, SubnetIds=["subnet_1"])


def unknown_vpc(ec2, sim):
    return refused(ec2.describe_vpcs, VpcIds=[f"vpc-{NOBODY}"])


def malformed_vpc(ec2, sim):
    return refused(ec2.describe_vpcs, VpcIds=["the-vpc"])


def unknown_instance(ec2, sim):
    return refused(ec2.describe_instances, InstanceIds=[f"i-{NOBODY}"])


def malformed_instance(ec2, sim):
    return refused(ec2.describe_instances, InstanceIds=["node-1"])


def instance_is_gone(ec2, sim):
    eni = create(ec2)
    sim.ctl("terminate", sim.instance("node-2"))
    return refused_attach(ec2, sim, eni, "node-2", 1)


def unknown_type(ec2, sim):
    return refused(ec2.describe_instance_types, InstanceTypes=["m5.huge"])


def xen_and_prefixes(ec2, sim):
    eni = create(ec2)
    attach(ec2, sim, eni, "node-3")
    return refused(ec2.assign_private_ip_addresses, NetworkInterfaceId=eni["NetworkInterfaceId"], Ipv4PrefixCount=1)


def other_parameters(ec2, sim):
    subnet = subnet_of(ec2, "main")["SubnetId"]
    ec2.create_network_interface(SubnetId=subnet, ClientToken="t")
    return refused(ec2.create_network_interface, SubnetId=subnet, ClientToken="t", Description="other")


def long_token(ec2, sim):
    return refused(ec2.create_network_interface, SubnetId=subnet_of(ec2, "main")["SubnetId"], ClientToken="t" * 65)


def tags_on_nothing(ec2, sim):
    return refused(ec2.create_tags, Resources=["vol-0123456789abcdef0"], Tags=[{"Key": "a", "Value": "b"}])


def refused_attach(ec2, sim, eni, node, device):
    return refused(
        ec2.attach_network_interface,
        NetworkInterfaceId=eni["NetworkInterfaceId"],
        InstanceId=sim.instance(node),
        DeviceIndex=device,
        NetworkCardIndex=0,
    )


CAUSES = [
    (too_many_calls, "RequestLimitExceeded"),
    (dry_run, "DryRunOperation"),
    (missing_parameter, "MissingParameter"),
    (nothing_to_assign, "MissingParameter"),
    (two_ways_to_ask, "InvalidParameterCombination"),
    (two_attributes, "InvalidParameterCombination"),
    (another_zone, "InvalidParameterCombination"),
    (delete_in_use, "InvalidParameterValue"),
    (index_taken, "InvalidParameterValue"),
    (no_prefix_free, "InvalidParameterValue"),
    (outside_the_subnet, "InvalidParameterValue"),
    (not_assigned, "InvalidParameterValue"),
    (the_primary, "InvalidParameterValue"),
    (long_token, "InvalidParameterValue"),
    (address_taken, "InvalidIPAddress.InUse"),
    (unknown_eni, "InvalidNetworkInterfaceID.NotFound"),
    (malformed_eni, "InvalidNetworkInterfaceID.Malformed"),
    (attached_twice, "InvalidNetworkInterface.InUse"),
    (unknown_attachment, "InvalidAttachmentID.NotFound"),
    (malformed_attachment, "InvalidAttachmentID.Malformed"),
    (detached_twice, "IncorrectState"),
    (primary_detached, "OperationNotPermitted"),
    (too_many_enis, "AttachmentLimitExceeded"),
    (too_many_addresses, "PrivateIpAddressLimitExceeded"),
    (no_address_free, "InsufficientFreeAddressesInSubnet"),
    (no_block_free, "InsufficientCidrBlocks"),
    (too_many_groups, "SecurityGroupsPerInterfaceLimitExceeded"),
    (unknown_group, "InvalidGroup.NotFound"),
    (malformed_group, "InvalidGroupId.Malformed"),
    (unknown_subnet, "InvalidSubnetID.NotFound"),
    (malformed_subnet, "InvalidSubnetID.Malformed"),
    (unknown_vpc, "InvalidVpcID.NotFound"),
    (malformed_vpc, "InvalidVpcID.Malformed"),
    (unknown_instance, "InvalidInstanceID.NotFound"),
    (malformed_instance, "InvalidInstanceID.Malformed"),
    (instance_is_gone, "IncorrectInstanceState"),
    (unknown_type, "InvalidInstanceType"),
    (xen_and_prefixes, "UnsupportedOperation"),
    (other_parameters, "IdempotentParameterMismatch"),
    (tags_on_nothing, "InvalidID"),
]


@pytest.mark.parametrize(("cause", "code"), CAUSES, ids=[cause.__name__ for cause, _ in CAUSES])
def test_a_cause_has_its_code(ec2_unchecked, sim, cause, code):
    refusal = cause(ec2_unchecked, sim)
    assert refusal.code == code, refusal.message
    assert refusal.status == {"RequestLimitExceeded": 503, "DryRunOperation": 412}.get(code, 400)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"Action": "RunInstances"}, "InvalidAction"),
        ({"Action": "describeSubnets"}, "InvalidAction"),
        ({}, "MissingParameter"),
        ({"Action": "DescribeSubnets", "Version": "2014-10-01"}, "InvalidParameter"),
        ({"Action": "DescribeSubnets", "SubnetID.1": "subnet-1"}, "UnknownParameter"),
        ({"Action": "DescribeSubnets", "MaxResults": "many"}, "InvalidParameterValue"),
        ({"Action": "DescribeSubnets", "DryRun": "yes"}, "InvalidParameterValue"),
        ({"Action": "DescribeSubnets", "Filter.1.Value.1": "x"}, "MissingParameter"),
    ],
)
def test_what_no_sdk_would_send_is_refused(sim, parameters, code):
    status, body = sim.raw(**parameters)
    assert status == 400 and f"<Code>{code}</Code>" in body.decode()


def test_no_code_of_vpc_sim_is_left_out(sim):
    """vpc-sim lists its codes when it is given one that it does not have."""
    import subprocess

    command = [sim.program, "ctl", "--state-dir", sim.state_dir, "fault", "DescribeVpcs", "--code", "Nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    known = done.stderr.partition("this EC2 has ")[2].replace(",", " ").split()
    raw = {"InvalidAction", "InvalidParameter", "UnknownParameter"}
    paging = {"InvalidNextToken"}
    tested = {code for _, code in CAUSES} | {code for code, _ in INJECTED} | raw | paging
    assert sorted(known) == sorted(tested)
