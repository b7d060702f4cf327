"""A vpc-sim of its own for each test, and boto3 clients that judge every answer by botocore's model."""

import os
import tempfile
from pathlib import Path

import boto3
import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

import contract
from simulator import Sim

REGION = "us-east-1"

# Nothing of the person who runs the tests gets in. Signatures are made and not checked.
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "AWS_ACCESS_KEY_ID": "AKIASIMULATED0000000",
    "AWS_SECRET_ACCESS_KEY": "simulated",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_MAX_ATTEMPTS": "1",
    "AWS_PAGER": "",
}

CONFIG = {
    "seed": 7,
    "vpc_cidrs": ["10.0.0.0/16"],
    "vpc_ipv6_cidrs": ["2001:db8::/56"],
    "subnets": [
        {"name": "main", "cidr": "10.0.1.0/24", "ipv6_cidr": "2001:db8::/64", "tags": {"role": "pods"}},
        {"name": "tiny", "cidr": "10.0.2.0/28"},
        {"name": "scattered", "cidr": "10.0.3.0/26", "policy": "worst"},
        {"name": "elsewhere", "cidr": "10.0.4.0/24", "zone": "us-east-1b"},
        *({"name": f"more-{n}", "cidr": f"10.0.{n}.0/24"} for n in range(10, 18)),
    ],
    "nodes": [
        {"name": "node-1", "type": "m5.large", "subnet": "main", "address": "10.0.1.10", "tags": {"team": "a"}},
        {"name": "node-2", "type": "t3.medium", "subnet": "main"},
        {"name": "node-3", "type": "t2.micro", "subnet": "main"},
        {"name": "node-4", "type": "c5.metal", "subnet": "elsewhere", "prefixes": 1},
        {"name": "node-5", "type": "p5.48xlarge", "subnet": "main"},
        {"name": "node-6", "type": "m5.large", "subnet": "more-10"},
    ],
    "internet": [],
}


def pytest_addoption(parser):
    parser.addoption("--vpc-sim", required=True, type=Path, help="the simulator to test")
    parser.addoption("--write-bodies", action="store_true", help="store the requests that this botocore sends")


@pytest.fixture(scope="session")
def botocore_session():
    """botocore keeps the model it has read with its session, and reading takes it a second."""
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    return botocore.session.get_session()


@pytest.fixture(scope="session")
def service_model(botocore_session):
    return botocore_session.get_service_model("ec2")


@pytest.fixture
def sim(request):
    with tempfile.TemporaryDirectory(prefix="vpc-sim-foreign-") as directory:
        program = request.config.getoption("--vpc-sim")
        running = Sim(program, Path(directory), CONFIG, "ec2", "--listen", "127.0.0.1:0")
        try:
            yield running
        finally:
            running.end()


def judge(operation_model, response_dict, **_):
    """Called by botocore with every answer, before it is parsed."""
    status, body = response_dict["status_code"], response_dict["body"]
    if status < 300:
        problems = contract.problems_of_success(operation_model, body)
    else:
        problems = contract.problems_of_refusal(body)
    kind = response_dict["headers"].get("content-type")
    if kind != "text/xml;charset=UTF-8":
        problems.append(f"the content type is {kind}")
    request_id = response_dict["headers"].get("x-amzn-requestid", "nothing")
    if request_id not in body.decode():
        problems.append(f"the header says request {request_id}, the body does not")
    assert not problems, f"{operation_model.name}, {status}: {problems}\n{body.decode()}"


def make_client(botocore_session, sim, **config):
    session = boto3.Session(botocore_session=botocore_session)
    settings = Config(**{"retries": {"total_max_attempts": 1, "mode": "standard"}, "read_timeout": 30, **config})
    client = session.client("ec2", region_name=REGION, endpoint_url=sim.url, config=settings)
    client.meta.events.register("before-parse.ec2", judge)
    return client


@pytest.fixture
def ec2(botocore_session, sim):
    return make_client(botocore_session, sim)


@pytest.fixture
def ec2_unchecked(botocore_session, sim):
    """A client that sends what is incomplete, too."""
    return make_client(botocore_session, sim, parameter_validation=False)


class Refusal:
    """What a refused call told its caller."""

    def __init__(self, error):
        self.code = error.response["Error"]["Code"]
        self.message = error.response["Error"]["Message"]
        self.status = error.response["ResponseMetadata"]["HTTPStatusCode"]


def refused(call, **parameters):
    """Makes a call that must be refused."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    return Refusal(caught.value)


def subnet_of(ec2, name):
    found = ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": [name]}])["Subnets"]
    assert len(found) == 1, found
    return found[0]


def create(ec2, subnet="main", **parameters):
    """A new ENI, as the answer describes it."""
    return ec2.create_network_interface(SubnetId=subnet_of(ec2, subnet)["SubnetId"], **parameters)["NetworkInterface"]


def attach(ec2, sim, eni, node="node-1", device=1, card=0):
    return ec2.attach_network_interface(
        NetworkInterfaceId=eni["NetworkInterfaceId"],
        InstanceId=sim.instance(node),
        DeviceIndex=device,
        NetworkCardIndex=card,
    )["AttachmentId"]


def eni_of(ec2, eni_id):
    return ec2.describe_network_interfaces(NetworkInterfaceIds=[eni_id])["NetworkInterfaces"][0]
