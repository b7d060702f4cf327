"""What botocore's model of EC2 says about an answer, applied to the XML as it came.

botocore's own parser is lenient: it drops elements that it does not know, takes any text for an enumeration, and reads a list with
a wrong wrapper as empty. This module is strict. It knows nothing of vpc-sim.
"""

import re
import xml.etree.ElementTree as ElementTree

NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"

# EC2 sends these, and its model leaves them out: the id comes to callers by a header, `return` says only that it worked.
BESIDE_THE_MODEL = {"requestId", "return"}

# EC2 leaves absent scalars out, but for free text.
MAY_BE_EMPTY = {"description", "value", "groupDescription"}

# AWS's catalogue grows between two releases of the model.
OPEN_ENUMERATIONS = {"InstanceType"}

FORMS = {
    "integer": re.compile(r"-?\d+"),
    "long": re.compile(r"-?\d+"),
    "double": re.compile(r"-?\d+(\.\d+)?"),
    "float": re.compile(r"-?\d+(\.\d+)?"),
    "boolean": re.compile(r"true|false"),
    "timestamp": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"),
}


def problems_of_success(operation, body):
    """Everything in a successful answer that the model of the operation does not have."""
    root = ElementTree.fromstring(body)
    wanted = f"{{{NAMESPACE}}}{operation.name}Response"
    if root.tag != wanted:
        return [f"the root is {root.tag}, not {wanted}"]
    strip_namespace(root)
    problems = []
    rest = [child for child in root if child.tag not in BESIDE_THE_MODEL]
    if root.find("requestId") is None:
        problems.append("there is no requestId")
    if operation.output_shape is None:
        return problems + [f"{child.tag}: the action has no output" for child in rest]
    return problems + problems_of_structure(operation.output_shape, rest, operation.name)


def problems_of_refusal(body):
    """Everything in a refusal that is not of EC2's form."""
    root = ElementTree.fromstring(body)
    shape = [element.tag for element in root.iter()]
    if shape != ["Response", "Errors", "Error", "Code", "Message", "RequestID"]:
        return [f"a refusal has the elements {shape}"]
    empty = [element.tag for element in root.iter() if len(element) == 0 and not element.text]
    return [f"{tag} is empty" for tag in empty]


def strip_namespace(root):
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{NAMESPACE}}}")


def problems_of_structure(shape, children, path):
    members = {member.serialization.get("name", name): member for name, member in shape.members.items()}
    problems = []
    seen = set()
    for child in children:
        here = f"{path}/{child.tag}"
        if child.tag in seen:
            problems.append(f"{here} stands there twice")
        seen.add(child.tag)
        if child.tag in members:
            problems += problems_of(members[child.tag], child, here)
        else:
            problems.append(f"{here} is not in the model")
    return problems


def problems_of(shape, element, path):
    if shape.type_name == "structure":
        return stray_text(element, path) + problems_of_structure(shape, list(element), path)
    if shape.type_name == "list":
        return problems_of_list(shape, element, path)
    return problems_of_scalar(shape, element, path)


def problems_of_list(shape, element, path):
    name = shape.member.serialization.get("name", "member")
    problems = stray_text(element, path)
    for item in element:
        if item.tag == name:
            problems += problems_of(shape.member, item, f"{path}/{name}")
        else:
            problems.append(f"{path}/{item.tag}: items of this list are called {name}")
    return problems


def problems_of_scalar(shape, element, path):
    text = element.text or ""
    if len(element):
        return [f"{path} is a {shape.type_name} and has elements in it"]
    if not text:
        return [] if element.tag in MAY_BE_EMPTY else [f"{path} is empty"]
    form = FORMS.get(shape.type_name)
    if form and not form.fullmatch(text):
        return [f"{path} is {text!r}, which is no {shape.type_name}"]
    enum = getattr(shape, "enum", None)
    if enum and text not in enum and shape.name not in OPEN_ENUMERATIONS:
        return [f"{path} is {text!r}, which is none of {enum}"]
    return []


def stray_text(element, path):
    return [f"{path} has text in it: {element.text!r}"] if (element.text or "").strip() else []
