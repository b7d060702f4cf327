"""The judge itself: it must see what is wrong, or the rest of the suite proves nothing."""

import pytest

import contract

GOOD = (
    '<DescribeNetworkInterfacesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>'
    "<networkInterfaceSet><item><networkInterfaceId>eni-1</networkInterfaceId><description></description>"
    "<status>in-use</status><attachment><deviceIndex>1</deviceIndex><deleteOnTermination>true</deleteOnTermination>"
    "<attachTime>2026-01-02T03:04:05.000Z</attachTime></attachment>"
    "<groupSet><item><groupId>sg-1</groupId></item></groupSet></item></networkInterfaceSet>"
    "</DescribeNetworkInterfacesResponse>"
)


@pytest.fixture
def problems(service_model):
    operation = service_model.operation_model("DescribeNetworkInterfaces")
    return lambda body: contract.problems_of_success(operation, body.encode())


def test_a_good_answer_has_no_problems(problems):
    assert problems(GOOD) == []


@pytest.mark.parametrize(
    ("was", "becomes", "complaint"),
    [
        ("DescribeNetworkInterfacesResponse", "DescribeNetworkInterfacesResult", "the root is"),
        ("networkInterfaceId", "networkInterfaceID", "networkInterfaceID is not in the model"),
        ("deviceIndex", "device", "attachment/device is not in the model"),
        ("<groupSet><item>", "<groupSet><member>", "items of this list are called item"),
        ("<groupSet><item><groupId>sg-1</groupId></item></groupSet>", "<groupSet>sg-1</groupSet>", "has text in it"),
        ("<deviceIndex>1</deviceIndex>", "<deviceIndex>one</deviceIndex>", "which is no integer"),
        ("<deviceIndex>1</deviceIndex>", "<deviceIndex></deviceIndex>", "is empty"),
        (">true<", ">True<", "which is no boolean"),
        ("05.000Z", "05Z", "which is no timestamp"),
        (">in-use<", ">used<", "which is none of"),
        ("<requestId>r</requestId>", "", "there is no requestId"),
        ("<status>in-use</status>", "<status>in-use</status><status>in-use</status>", "stands there twice"),
        ("<status>in-use</status>", "<status><a>in-use</a></status>", "has elements in it"),
    ],
)
def test_a_defect_is_seen(problems, was, becomes, complaint):
    body = GOOD.replace(was, becomes)
    if becomes.endswith("<member>"):
        body = body.replace("</item></groupSet>", "</member></groupSet>")
    assert body != GOOD
    assert any(complaint in problem for problem in problems(body)), problems(body)


def test_defects_of_refusals_are_seen():
    good = "<Response><Errors><Error><Code>C</Code><Message>m</Message></Error></Errors><RequestID>r</RequestID></Response>"
    assert contract.problems_of_refusal(good) == []
    for was, becomes in [("RequestID", "requestId"), ("<Message>m</Message>", ""), (">C<", "><")]:
        assert contract.problems_of_refusal(good.replace(was, becomes))
