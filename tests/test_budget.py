"""Quantizing to a budget, on a small block: what stays in float, and what that is worth."""

import dataclasses
import json

import numpy as np
import pytest
import small_build
from small_networks import BLOCK

from exporters import budget, exporting, manifest, rebuilding
from exporters.errors import ArtifactError, ExportError
from exporters.exporting import export
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS
from exporters.parity import Tolerance
from exporters.record import of_facts
from exporters.verification import verify

CHECKPOINT = small_build.checkpoint()
CHECKPOINT.num_classes = len(small_build.LABELS)
INTEGERS = ("onnx-int8", "tflite-int8")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    small_build.install(monkeypatch)


def row(name):
    """A row, for the tasks of the block."""
    return dataclasses.replace(FORMATS[name], tasks=tuple(TASKS.values()))


@pytest.fixture
def exported(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "labels_for", lambda *_: small_build.LABELS)

    def run(name, keep_float=(), **options):
        return export(
            CHECKPOINT,
            tmp_path / "out",
            formats=[row(name)],
            tasks=["classification"],
            options=dataclasses.replace(small_build.OPTIONS, keep_float=keep_float),
            reference=small_build.BlockReference(CHECKPOINT),
            **{"images": small_build.IMAGES} | options,
        )

    return run


def described(path):
    return json.loads(manifest.path_of(path).read_text())


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("blocks", [("left",), ("right", "up"), ("head",)])
def test_blocks_that_are_named_stay_in_float(exported, name, blocks):
    done = exported(name, keep_float=blocks)
    (item,) = done.artifacts
    assert item.is_kept, item.failures
    assert f"-{len(blocks)}-in-float" in item.path.name
    assert described(item.path)["options"]["keep_float"] == list(blocks)
    assert '"keep_float": ' in manifest.card_of(item.path).read_text()
    artifact, found = open_artifact(item.path)
    with artifact:
        weights = artifact.weights()
        in_float = found.precision.float_layers(BLOCK)
        assert {layer for name in blocks for layer in BLOCK.blocks[name]} <= in_float
        for layer in BLOCK.weighted:
            is_float = weights[f"{layer.scope}/weights"].quantization is None
            assert is_float == (layer.name in in_float), layer.name
    again = verify(
        item.path,
        CHECKPOINT,
        images=small_build.IMAGES,
        reference=small_build.BlockReference(CHECKPOINT),
    )
    assert again.passed
    rebuilt = rebuilding.rebuild(
        item.path,
        CHECKPOINT,
        formats={name: row(name)},
        reference=small_build.BlockReference(CHECKPOINT),
    )
    assert rebuilt.passed, rebuilt.artifacts


@pytest.mark.parametrize("name", INTEGERS)
def test_a_budget_that_is_met_without(exported, name):
    (item,) = exported(name, budget=Tolerance(0.5, 0.5)).artifacts
    assert item.is_kept
    assert [trial.keep_float for trial in item.trials] == [()]
    assert "keep_float" not in described(item.path)["options"]


@pytest.mark.parametrize("name", INTEGERS)
def test_a_budget_takes_the_worst_blocks_and_no_more(exported, name):
    (plain,) = exported(name).artifacts
    budgeted = Tolerance(plain.report.main.relative_error / 2, -1)
    (item,) = exported(name, budget=budgeted).artifacts
    assert item.is_kept, item.failures
    assert item.path.name != plain.path.name and "-budget" in item.path.name
    chosen = budget.choice(item.trials)
    assert item.report.main.relative_error <= budgeted.max_error
    assert item.report.main.relative_error == chosen.output.relative_error
    assert item.report.main.tolerance.max_error == budgeted.max_error
    assert described(item.path)["options"]["keep_float"] == list(chosen.keep_float)
    fewer = [t for t in item.trials if len(t.keep_float) < len(chosen.keep_float)]
    assert fewer and not any(trial.is_enough for trial in fewer)
    assert len(chosen.keep_float) - 1 in {len(t.keep_float) for t in fewer}
    assert described(item.path)["budget"] == [t.as_dict() for t in item.trials]
    assert all(trial.milliseconds > 0 for trial in item.trials)


@pytest.mark.parametrize("name", INTEGERS)
def test_a_budget_that_cannot_be_met_leaves_nothing(exported, name, tmp_path):
    (item,) = exported(name, budget=Tolerance(1e-12, -1)).artifacts
    assert not item.is_kept and item.error is None
    best = budget.choice(item.trials)
    told = f"with {len(best.keep_float)} blocks in float, has {best.output.in_words()}"
    assert item.failures[0].startswith("the budget cannot be met: ")
    assert item.failures[0].endswith(told)
    assert not (tmp_path / "out").exists()


def test_a_cosine_is_a_budget_too(exported):
    (plain,) = exported("tflite-int8").artifacts
    limit = (1 + plain.report.main.cosine) / 2
    (item,) = exported("tflite-int8", budget=Tolerance(np.inf, limit)).artifacts
    assert item.is_kept and item.report.main.cosine >= limit
    assert item.trials[-1].keep_float


def test_what_is_given_stays_in_any_case(exported):
    (plain,) = exported("tflite-int8").artifacts
    limit = Tolerance(plain.report.main.relative_error / 2, -1)
    (item,) = exported("tflite-int8", keep_float=("up",), budget=limit).artifacts
    assert all(trial.keep_float[0] == "up" for trial in item.trials)


@pytest.mark.parametrize("name", ["Block9", "average", ""])
def test_unknown_blocks(exported, name, tmp_path):
    with pytest.raises(ExportError, match=f"unknown block '{name}'; there are: first,"):
        exported("tflite-int8", keep_float=(name,))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options", [{"budget": Tolerance(0.1, -1)}, {"keep_float": ("up",)}]
)
def test_formats_without_integers(exported, options):
    with pytest.raises(ExportError, match="has no effect on onnx-float32"):
        exported("onnx-float32", **options)


def test_a_budget_without_a_comparison(exported):
    with pytest.raises(ExportError, match="no effect without a comparison"):
        exported("tflite-int8", budget=Tolerance(0.1, -1), verify=False, images=None)


@pytest.mark.parametrize("kept", ["block8_9", [1], {"a": 1}])
def test_a_record_with_odd_blocks_is_refused(kept):
    facts = {
        "format": "onnx-int8",
        "task": "classification",
        "checkpoint_identity": "0" * 64,
        "provenance": "unverified",
        "stand_in": False,
        "options": {"keep_float": kept},
    }
    with pytest.raises(ArtifactError, match="keep_float is"):
        of_facts(facts, "x")


def test_formats_that_take_a_budget():
    assert {row.name for row in FORMATS.values() if row.takes_budget} == set(INTEGERS)
