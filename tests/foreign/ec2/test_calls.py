"""What a call does twice, in a dry run, or when its answer is lost."""

import pytest
from botocore.exceptions import ConnectionClosedError, ReadTimeoutError

from conftest import attach, create, make_client, refused, subnet_of


def state(sim):
    """Everything there is, but for the time."""
    return {key: value for key, value in sim.ctl("state").items() if key != "seconds"}


def enis(sim):
    """Ids of ENIs that are attached to nothing."""
    return {eni["id"] for eni in sim.ctl("state")["available_enis"]}


def test_a_token_makes_a_repeated_create_answer_the_first_eni_again(ec2, sim):
    wish = {"SecondaryPrivateIpAddressCount": 2, "Description": "d", "ClientToken": "token-1"}
    first = create(ec2, **wish)
    ec2.assign_private_ip_addresses(NetworkInterfaceId=first["NetworkInterfaceId"], SecondaryPrivateIpAddressCount=1)
    after = enis(sim)
    again = create(ec2, **wish)
    assert again == first, "as it was made, not as it is"
    assert enis(sim) == after
    other = create(ec2, **{**wish, "ClientToken": "Token-1"})
    assert other["NetworkInterfaceId"] != first["NetworkInterfaceId"], "letters have a case"


def test_a_token_with_other_parameters_is_refused_and_does_nothing(ec2, sim):
    subnet = subnet_of(ec2, "main")["SubnetId"]
    ec2.create_network_interface(SubnetId=subnet, ClientToken="t")
    before = enis(sim)
    for change in [
        {"Description": "other"},
        {"SecondaryPrivateIpAddressCount": 1},
        {"TagSpecifications": [{"ResourceType": "network-interface", "Tags": [{"Key": "a", "Value": "b"}]}]},
    ]:
        refusal = refused(ec2.create_network_interface, SubnetId=subnet, ClientToken="t", **change)
        assert (refusal.code, refusal.status) == ("IdempotentParameterMismatch", 400)
    assert enis(sim) == before


def test_boto3_makes_a_token_of_its_own_for_each_call(ec2):
    subnet = subnet_of(ec2, "main")["SubnetId"]
    answers = [ec2.create_network_interface(SubnetId=subnet) for _ in range(2)]
    assert answers[0]["ClientToken"] != answers[1]["ClientToken"]
    assert answers[0]["NetworkInterface"]["NetworkInterfaceId"] != answers[1]["NetworkInterface"]["NetworkInterfaceId"]


def test_a_retry_of_boto3_after_a_lost_answer_makes_no_second_eni(botocore_session, sim, ec2):
    before = enis(sim)
    patient = make_client(botocore_session, sim)
    patient.meta.events.register("needs-retry.ec2", lambda attempts, **_: 0 if attempts < 3 else None)
    sim.ctl("fault", "CreateNetworkInterface", "--lose", "applied")
    eni = create(patient)
    assert enis(sim) - before == {eni["NetworkInterfaceId"]}


@pytest.mark.parametrize("effect", ["applied", "not-applied"])
def test_a_lost_answer_leaves_the_caller_in_doubt(ec2, sim, effect):
    eni_id = create(ec2)["NetworkInterfaceId"]
    sim.ctl("fault", "DeleteNetworkInterface", "--lose", effect)
    with pytest.raises(ConnectionClosedError):
        ec2.delete_network_interface(NetworkInterfaceId=eni_id)
    assert (eni_id in enis(sim)) == (effect == "not-applied")


def test_an_answer_that_hangs_meets_the_callers_deadline(botocore_session, sim):
    sim.ctl("lost-answers", "hang")
    sim.ctl("fault", "DescribeVpcs", "--lose", "not-applied")
    hasty = make_client(botocore_session, sim, read_timeout=1)
    with pytest.raises(ReadTimeoutError):
        hasty.describe_vpcs()


def test_a_dry_run_of_every_change_does_nothing(ec2, sim):
    eni = create(ec2, SecondaryPrivateIpAddressCount=1)
    eni_id, subnet = eni["NetworkInterfaceId"], eni["SubnetId"]
    tied = create(ec2)
    tie = attach(ec2, sim, tied)
    before = state(sim)
    for call, parameters in [
        (ec2.create_network_interface, {"SubnetId": subnet}),
        (ec2.delete_network_interface, {"NetworkInterfaceId": eni_id}),
        (ec2.attach_network_interface, {"NetworkInterfaceId": eni_id, "InstanceId": sim.instance("node-2"), "DeviceIndex": 1}),
        (ec2.detach_network_interface, {"AttachmentId": tie}),
        (ec2.modify_network_interface_attribute, {"NetworkInterfaceId": eni_id, "Description": {"Value": "x"}}),
        (ec2.create_tags, {"Resources": [eni_id], "Tags": [{"Key": "a", "Value": "b"}]}),
        (ec2.describe_network_interfaces, {}),
    ]:
        refusal = refused(call, DryRun=True, **parameters)
        assert (refusal.code, refusal.status) == ("DryRunOperation", 412)
        assert refusal.message == "Request would have succeeded, but DryRun flag is set."
    assert state(sim) == before
