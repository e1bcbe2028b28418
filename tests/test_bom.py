"""The bill of materials: by CycloneDX's own schema, and true to the manifest."""

import json

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from manifests import PARITY, described

from exporters import bom
from exporters.formats import FORMATS
from exporters.network.tasks import TASKS


def made(name="onnx-int8", task="classification", **facts):
    row = FORMATS[name]
    return bom.document("model", row, described(row, task, **facts))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("task", TASKS)
def test_it_meets_the_schema(name, task):
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(made(name, task))) is None


def test_what_it_says():
    found = made()
    model = found["metadata"]["component"]
    (checkpoint,) = model["pedigree"]["ancestors"]
    manifest = described(FORMATS["onnx-int8"])
    properties = {item["name"]: item["value"] for item in model["properties"]}
    assert properties["irv2:format"] == "onnx-int8"
    assert properties["irv2:stand_in"] == str(manifest["stand_in"])
    assert properties["irv2:option:nchw"] == "False"
    identity = {"name": "irv2:identity", "value": manifest["checkpoint_identity"]}
    assert identity in checkpoint["properties"]
    assert {part["name"]: part["hashes"] for part in found["components"]} == {
        name: [{"alg": "SHA-256", "content": digest}]
        for name, digest in manifest["files"].items()
    }
    (card,) = [model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]]
    error = PARITY["outputs"]["logits"]["relative_error"]
    assert card[0]["value"] == f"{error:.6g}"
    tools = found["metadata"]["tools"]["components"]
    assert {tool["name"]: tool["version"] for tool in tools} == manifest["versions"]
    assert tools[-1]["purl"] == "pkg:pypi/tf-slim@1.1.0"


@pytest.mark.parametrize("stand_in", [True, False])
def test_a_stand_in_is_called_one(stand_in):
    model = made(stand_in=stand_in)["metadata"]["component"]
    told = model["modelCard"]["considerations"]["technicalLimitations"]
    assert any("stand-in" in line for line in told) is stand_in


def test_what_was_not_compared_has_no_figures():
    model = made(parity=None)["metadata"]["component"]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == []
