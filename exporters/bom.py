"""The bill of materials beside each artifact: its manifest, for programs that keep stock.

CycloneDX 1.6 in JSON, with the model card of its machine-learning models
(https://cyclonedx.org/docs/1.6/json/). It names no time and no serial number, so that the
same export gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from checkpoints.reader import Provenance
from exporters import cards
from exporters.formats import Format

_MODEL, _CHECKPOINT = "model", "checkpoint"
_LICENSES = [{"license": {"id": "Apache-2.0"}}]
_STAND_IN = "A stand-in: the weights are generated, and classify nothing."


def document(name: str, row: Format, described: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the bill of materials of an artifact, as JSON values.

    Args:
      name: file name of the artifact.
      row: its format.
      described: its manifest; see `exporters.manifest.describe`.
    """
    libraries = dict(described["versions"])
    tool = {"type": "application", "name": "irv2", "version": libraries.pop("irv2")}
    python = {"type": "platform", "name": "python", "version": libraries.pop("python")}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [tool, python, *_packages(libraries)]},
            "component": _model(name, row, described),
        },
        "components": [
            {
                "type": "file",
                "bom-ref": file,
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
            for file, digest in described["files"].items()
        ],
        "dependencies": [{"ref": _MODEL, "dependsOn": list(described["files"])}],
    }


def _packages(versions: Mapping[str, str]) -> Iterator[dict[str, str]]:
    for name, version in versions.items():
        yield {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}",
        }


def _model(name: str, row: Format, described: Mapping[str, Any]) -> dict[str, Any]:
    contract = list(cards.contract(row, described))
    limitations = [_STAND_IN] if described["stand_in"] else []
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "name": name,
        "description": f"Inception-ResNet-v2 for {described['task']}, as {row.summary}",
        "licenses": _LICENSES,
        "pedigree": {"ancestors": [_checkpoint(described)]},
        "modelCard": {
            "modelParameters": {
                "task": cards.PIPELINE_TAGS[described["task"]],
                "architectureFamily": "convolutional neural network",
                "modelArchitecture": "Inception-ResNet-v2",
                "inputs": [{"format": contract[0]}],
                "outputs": [{"format": contract[1]}],
            },
            "quantitativeAnalysis": {"performanceMetrics": list(_metrics(described))},
            "considerations": {"technicalLimitations": limitations},
        },
        "properties": _properties(
            format=described["format"],
            task=described["task"],
            stand_in=described["stand_in"],
            handle=described.get("handle"),
            calibration=described.get("calibration"),
            **{f"option:{key}": value for key, value in described["options"].items()},
        ),
    }


def _checkpoint(described: Mapping[str, Any]) -> dict[str, Any]:
    provenance = described["provenance"]
    return {
        "type": "machine-learning-model",
        "bom-ref": _CHECKPOINT,
        "name": "inception_resnet_v2_2016_08_30"
        if provenance == Provenance.PUBLISHED.value
        else described["checkpoint"]["file"],
        "description": f"TF-Slim checkpoint, {provenance}",
        "licenses": _LICENSES,
        "properties": _properties(
            identity=described["checkpoint_identity"],
            provenance=provenance,
            container=described["checkpoint"]["container"],
        ),
    }


def _metrics(described: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """How the main output agrees with TF-Slim's network; nothing if it was not compared."""
    found = described.get("parity") or {}
    main = found.get("main_output")
    output = found.get("outputs", {}).get(main)
    if not output:
        return
    for measure in ("relative_error", "cosine"):
        if output[measure] is not None:
            yield {
                "type": f"{measure} beside TF-Slim's network",
                "value": f"{output[measure]:.6g}",
                "slice": f"{main} on {described['compared_on']}",
            }


def _properties(**values: Any) -> list[dict[str, str]]:
    return [
        {"name": f"irv2:{name}", "value": str(value)}
        for name, value in values.items()
        if value is not None
    ]
