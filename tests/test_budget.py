"""Quantizing to a budget, on a small block: what stays in float, and what that is worth."""

import dataclasses
import json

import numpy as np
import pytest
import small_build
from PIL import Image
from small_networks import BLOCK

from exporters import budget, exporting, manifest, rebuilding
from exporters import images as image_files
from exporters.errors import ArtifactError, EvaluationError, ExportError
from exporters.exporting import export
from exporters.formats import FORMATS, open_artifact
from exporters.network.tasks import TASKS
from exporters.parity import OutputParity, Tolerance
from exporters.progress import Note
from exporters.record import of_facts
from exporters.verification import verify

CHECKPOINT = small_build.checkpoint()
CHECKPOINT.num_classes = len(small_build.LABELS)
CLASSIFIER = "scope/logits/biases"
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

    def run(name, keep_float=(), checkpoint=CHECKPOINT, full_integer=False, **options):
        return export(
            checkpoint,
            tmp_path / "out",
            formats=[row(name)],
            options=dataclasses.replace(
                small_build.OPTIONS, keep_float=keep_float, full_integer=full_integer
            ),
            reference=small_build.BlockReference(checkpoint),
            **{"images": small_build.IMAGES, "tasks": ["classification"]} | options,
        )

    return run


@pytest.fixture(scope="module")
def tied():
    """The checkpoint, but for a classifier that finds it hard to tell two classes."""
    images = image_files.generate(64, *small_build.IMAGE_SIZE, seed=6)
    reference = small_build.BlockReference(CHECKPOINT)
    logits = reference.outputs(images, ["logits"])["logits"]
    first, second = np.argsort(-logits.mean(axis=0))[:2]
    biases = CHECKPOINT[CLASSIFIER].copy()
    biases[second] += np.median(logits[:, first] - logits[:, second])
    checkpoint = small_build.checkpoint(**{CLASSIFIER: biases})
    checkpoint.num_classes = len(small_build.LABELS)
    return checkpoint


@pytest.fixture(scope="module")
def photographs(tmp_path_factory, tied):
    """A folder of a folder for each class, as that network sees it: nearest ties."""
    folder = tmp_path_factory.mktemp("photographs")
    pixels = np.rint(255 * image_files.generate(120, 86, 86, seed=5)).astype(np.uint8)
    flat = folder / "flat"
    flat.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(flat / f"{number:03}.png")
    files = sorted(flat.iterdir())
    images = image_files.read(files, *small_build.IMAGE_SIZE)
    reference = small_build.BlockReference(tied)
    logits = reference.outputs(images, ["logits"])["logits"]
    assert len(set(logits.argmax(axis=1))) > 1
    margins = np.diff(np.sort(logits, axis=1)[:, -2:], axis=1)[:, 0]
    for number in np.argsort(margins)[:40]:
        name = small_build.LABELS[logits[number].argmax()]
        (folder / "labelled" / name).mkdir(parents=True, exist_ok=True)
        files[number].rename(folder / "labelled" / name / files[number].name)
    return folder


@pytest.fixture
def names(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("\n".join(small_build.LABELS))
    return file


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
    # It is in float whatever the choice.
    assert len(item.trials) > 1
    assert not any("first" in trial.keep_float for trial in item.trials)
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


@pytest.mark.parametrize("name", INTEGERS)
def test_a_drop_that_is_met_without(exported, photographs, tied, names, name):
    notes = []
    (item,) = exported(
        name,
        checkpoint=tied,
        images=photographs / "labelled",
        labels=names,
        max_drop=99.0,
        progress=notes.append,
    ).artifacts
    assert item.is_kept, item.failures
    assert "-budget" in item.path.name
    (trial,) = item.trials
    assert trial.score.count == trial.score.expected == 40
    assert any("counted on 40 images of labelled" in str(note) for note in notes)
    (kept,) = described(item.path)["budget"]
    assert kept["top_1"] == trial.score.right / 40
    assert kept["top_1_drop"] == trial.score.drop
    card = manifest.card_of(item.path).read_text()
    assert "in float is no block" in card
    assert "top-1 on 40 images of labelled" in card
    assert f"| {100 * kept['top_1']:.2f} % | {kept['top_1_drop']:.3g} |" in card


def test_a_drop_takes_the_worst_blocks_and_no_more(exported, photographs, tied, names):
    (item,) = exported(
        "tflite-int8",
        full_integer=True,
        checkpoint=tied,
        images=photographs / "labelled",
        labels=names,
        max_drop=0.0,
    ).artifacts
    assert item.is_kept, item.failures
    first, *others = item.trials
    assert first.keep_float == () and first.score.drop > 0
    chosen = budget.choice(item.trials)
    assert chosen.keep_float and chosen.score.drop <= 0 and chosen in others
    assert described(item.path)["options"]["keep_float"] == list(chosen.keep_float)
    fewer = [t for t in item.trials if len(t.keep_float) < len(chosen.keep_float)]
    assert not any(trial.is_enough for trial in fewer)
    # Counted by itself, image by image.
    pictures = sorted((photographs / "labelled").rglob("*.png"))
    images = image_files.read(pictures, *small_build.IMAGE_SIZE)
    classes = [small_build.LABELS.index(file.parent.name) for file in pictures]
    artifact, _ = open_artifact(item.path)
    with artifact:
        right = (artifact.predict(images).argmax(axis=1) == classes).sum()
    assert right == chosen.score.right


def test_budgets_of_both_kinds(exported, photographs, tied, names, tmp_path):
    (item,) = exported(
        "tflite-int8",
        checkpoint=tied,
        images=photographs / "labelled",
        labels=names,
        max_drop=0.0,
        budget=Tolerance(1e-12, -1),
    ).artifacts
    assert not item.is_kept
    assert "points of top-1 lost (at most 0; " in item.failures[0]
    assert "(at most 1e-12), cosine" in item.failures[0]
    assert not (tmp_path / "out").exists()


def test_the_best_of_what_is_not_enough_is_the_one_that_loses_least():
    output = OutputParity(0.0, 0.1, 1.0, None, None, Tolerance(1, -1))
    worse = budget.Trial((), output, 1, budget.Score(5, 10, 10, 1))
    better = dataclasses.replace(
        worse,
        output=dataclasses.replace(output, relative_error=0.2),
        score=budget.Score(7, 10, 10, 1),
    )
    assert budget.choice([worse, better]) == better
    assert worse.score.drop == 50 and budget.Score(9, 10, 10, 10).passed
    assert budget.Score(11, 10, 20, 0).drop == -5


def test_labels_in_a_file(exported, photographs, names, tmp_path):
    count = len(list((photographs / "flat").iterdir()))
    truth = tmp_path / "truth.txt"
    truth.write_text("\n".join(["0"] * count))
    (item,) = exported(
        "onnx-int8",
        images=photographs / "flat",
        labels=names,
        ground_truth=truth,
        label_offset=0,
        max_drop=50.0,
    ).artifacts
    assert item.is_kept, item.failures
    assert item.trials[0].score.count == count


def test_a_drop_without_labels(exported, photographs, names, tmp_path):
    with pytest.raises(EvaluationError, match="holds images without labels"):
        exported("onnx-int8", images=photographs / "flat", labels=names, max_drop=1.0)
    with pytest.raises(ExportError, match="--max-drop needs images whose classes"):
        exported("onnx-int8", images=None, max_drop=1.0)
    with pytest.raises(ExportError, match="--label-offset has no effect without"):
        exported("onnx-int8", label_offset=1)
    assert not (tmp_path / "out").exists()


def test_a_drop_of_what_names_no_class(exported, photographs):
    images = photographs / "labelled"
    with pytest.raises(ExportError, match="--max-drop has no effect on feature_vector"):
        exported("onnx-int8", images=images, tasks=["feature_vector"], max_drop=1.0)
    with pytest.raises(ExportError, match="a budget has no effect on onnx-float32"):
        exported("onnx-float32", images=images, max_drop=1.0)


def test_feature_vectors_beside_classes(exported, photographs, names):
    notes = []
    done = exported(
        "onnx-int8",
        images=photographs / "labelled",
        labels=names,
        tasks=None,
        max_drop=99.0,
        progress=notes.append,
    )
    by_task = {item.task: item for item in done.artifacts}
    assert "-budget" not in by_task["feature_vector"].path.name
    assert not by_task["feature_vector"].trials
    assert "-budget" in by_task["classification"].path.name
    assert Note("--max-drop has no effect on feature_vector.") in notes


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
