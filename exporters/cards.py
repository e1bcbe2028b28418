"""The model card beside each artifact: its manifest, for people.

Markdown, with the header of metadata that Hugging Face's hub reads
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from checkpoints.reader import Provenance
from exporters.formats import Format
from exporters.labels import first_without_background
from exporters.network.inception_resnet_v2 import DEFAULT_IMAGE_SIZE
from exporters.network.tasks import TASKS

PIPELINE_TAGS = {
    "classification": "image-classification",
    "feature_vector": "image-feature-extraction",
}
_STAND_IN = (
    "> **STAND-IN.** The weights are generated, and classify nothing. This file is for "
    "trying things."
)
_PROVENANCE = {
    Provenance.PUBLISHED.value: (
        "The checkpoint is `inception_resnet_v2_2016_08_30`, as Google published it. It "
        "was trained on the training images of ImageNet's ILSVRC-2012. On the 50,000 "
        "validation images, [its authors]"
        "(https://github.com/tensorflow/models/tree/master/research/slim"
        "#pre-trained-models) give 80.4 % top-1 and 95.3 % top-5."
    ),
    Provenance.STAND_IN.value: (
        "None: the weights are generated, and their accuracy is that of guessing."
    ),
    Provenance.UNVERIFIED.value: (
        "Not known: the checkpoint is not the published archive, and what it was trained "
        "on is for those to say who trained it."
    ),
}
_VECTORS = """\
`{name}.test_vectors/` holds what another runtime, on another device, can be compared
with: `images.npy`, the input as this file takes it, and `{output}.npy`, what TF-Slim's
network makes of it, in float32. No number may differ by more than `max_error.npy`, and no
image's output may have a smaller cosine than `min_cosine.npy`."""
_FEW = 10


def text(
    name: str, row: Format, described: Mapping[str, Any], *, has_vectors: bool = False
) -> str:
    """Writes the card of an artifact.

    Args:
      name: file name of the artifact.
      row: its format.
      described: its manifest; see `exporters.manifest.describe`.
      has_vectors: whether test vectors lie beside it.
    """
    sections = [
        _header(name, row, described),
        f"# {name}",
        *([_STAND_IN] if described["stand_in"] else []),
        f"Inception-ResNet-v2 ([Szegedy et al., 2016](https://arxiv.org/abs/1602.07261)) "
        f"for {described['task']}, as {row.summary}, regenerated from TF-Slim's training "
        "checkpoint by irv2.",
    ]
    if row.container.snippet:
        sections += ["## Use", _snippet(name, row, described)]
    lines = [f"- {line}" for line in contract(row, described)]
    sections += ["## Input and output", "\n".join(lines)]
    if described["task"] == "classification":
        sections += ["## Labels", _labels(row, described)]
    sections += [
        "## Training data and accuracy",
        _PROVENANCE[described["provenance"]],
        "## Parity",
        _parity(described),
        *([_budget(described)] if described.get("budget") else []),
        *([_VECTORS.format(name=name, output=output_name(described))] * has_vectors),
        *(
            ["## Evaluation", _evaluation(described)]
            if described.get("evaluation")
            else []
        ),
        "## Licence",
        "Apache-2.0, as the published checkpoint and the code of TF-Slim.",
        "## Checkpoint",
        _checkpoint(row, described),
    ]
    return "\n\n".join(sections) + "\n"


def _header(name: str, row: Format, described: Mapping[str, Any]) -> str:
    tags = ["inception_resnet_v2", "tf-slim", row.name]
    if described["stand_in"]:
        tags.append("stand-in")
    facts: dict[str, str | list[str]] = {"license": "apache-2.0"}
    if row.container.library:
        facts["library_name"] = row.container.library
    facts["pipeline_tag"] = PIPELINE_TAGS[described["task"]]
    facts["tags"] = tags
    if described["provenance"] == Provenance.PUBLISHED.value:
        facts["datasets"] = ["imagenet-1k"]
    lines = [
        f"{field}: {value}"
        if isinstance(value, str)
        else "\n".join([f"{field}:", *(f"- {item}" for item in value)])
        for field, value in facts.items()
    ]
    found = described.get("evaluation")
    if found and not described["stand_in"]:  # Sites compare models by these.
        lines += _results(name, found)
    return "\n".join(["---", *lines, "---"])


def _results(name: str, found: Mapping[str, Any]) -> Iterator[str]:
    """The evaluation as Hugging Face's hub reads it."""
    dataset = json.dumps(found["images"])
    yield "model-index:"
    yield f"- name: {json.dumps(name)}"
    yield "  results:"
    yield "  - task:"
    yield f"      type: {PIPELINE_TAGS['classification']}"
    yield "    dataset:"
    yield f"      name: {dataset}"
    yield f"      type: {dataset}"
    yield "    metrics:"
    for title, value in (("Top-1", found["top_1"]), ("Top-5", found["top_5"])):
        if value is not None:
            yield "    - type: accuracy"
            yield f"      name: {title}"
            yield f"      value: {value:.6g}"


def _evaluation(described: Mapping[str, Any]) -> str:
    found = described["evaluation"]
    top_5 = found["top_5"]
    text = (
        f"On {found['count']:,} images of {found['images']}, {found['layout']}, the right "
        f"class comes first for {100 * found['top_1']:.2f} %"
    )
    if top_5 is not None:
        text += f", and is among the first five for {100 * top_5:.2f} %"
    if engine := found.get("engine"):
        text += f", run by {engine}"
    if described["stand_in"]:
        text += ". That is chance: the weights are generated"
    return f"{text}."


def snippet(name: str, row: Format, described: Mapping[str, Any]) -> str:
    """Returns the program by which its consumer runs an artifact, without its fence."""
    fenced = _snippet(name, row, described)
    return "\n".join(fenced.splitlines()[1:-1]) + "\n"


def _snippet(name: str, row: Format, described: Mapping[str, Any]) -> str:
    """Fills in a template.

    A line that begins with "?condition " is for artifacts that meet it, and one with
    "!condition " for the others.
    """
    folder = importlib.resources.files("exporters") / "data/snippets"
    template = (folder / f"{row.container.snippet}.txt").read_text("utf-8")
    height, width = image_size(row, described)
    words = {
        "NAME": name,
        "HEIGHT": str(height),
        "WIDTH": str(width),
        "OUTPUT": output_name(described),
        "CLASSES": str(_classes(row, described)),
    }
    options = described["options"]
    conditions = {
        "labels": bool(described.get("labels")),
        "classes": described["task"] == "classification",
        "nchw": bool(options.get("nchw")),
        "signed": is_signed(row, described) and number_type(described) == "float32",
        number_type(described): True,
    }
    lines = []
    for line in template.splitlines():
        if line[:1] in ("?", "!"):
            condition, _, rest = line[1:].partition(" ")
            if conditions.get(condition, False) == (line[0] == "!"):
                continue
            line = rest
        lines.append(line)
    filled = "\n".join(lines)
    for word, value in words.items():
        filled = filled.replace(f"@{word}@", value)
    return filled


def image_size(row: Format, described: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width that an artifact takes, or may as well take."""
    height, width = (
        described["options"].get("image_size")
        or row.fixed_image_size
        or [DEFAULT_IMAGE_SIZE] * 2
    )
    return height, width


def output_name(described: Mapping[str, Any]) -> str:
    """What the artifact's own output is called."""
    if described["options"].get("softmax") and described["task"] == "classification":
        return "probabilities"
    return TASKS[described["task"]].output


def number_type(described: Mapping[str, Any]) -> str:
    """Of which type input and output are: "float32", "uint8" or "int8"."""
    return str(described["options"].get("integer_type", "float32"))


def is_signed(row: Format, described: Mapping[str, Any]) -> bool:
    """Whether images are in [-1, 1]."""
    return row.takes_signed or bool(described["options"].get("signed_input"))


def _classes(row: Format, described: Mapping[str, Any]) -> int | None:
    """How many classes the artifact has."""
    count = described["num_classes"]
    if count is None or not row.container.leaves_background_out:
        return count
    return int(count) - first_without_background(count)


def contract(row: Format, described: Mapping[str, Any]) -> Iterator[str]:
    """Yields sentences on what goes in, what comes out, and what is good to know."""
    options = described["options"]
    height, width = image_size(row, described)
    is_fixed = bool(row.fixed_image_size or options.get("image_size"))
    size = f"{height}, {width}" if is_fixed else "height, width"
    shape = f"[batch, 3, {size}]" if options.get("nchw") else f"[batch, {size}, 3]"
    if row.container.library == "timm":
        shape = f"[batch, 3, {size}]"
    kind = number_type(described)
    values = "[-1, 1]" if is_signed(row, described) else "[0, 1]"
    if kind != "float32":
        values = "pixels, 0 to 255" if kind == "uint8" else "pixels less 128"
    yield f"Images: {kind}, {shape}, RGB, {values}."
    width_of = (
        1536 if described["task"] == "feature_vector" else _classes(row, described)
    )
    yield f"Output: `{output_name(described)}`, {kind}, [batch, {width_of}]."
    if not is_fixed:
        yield "Any height and width from 75 on; the network was trained on 299 x 299."
    yield (
        "The published figures are for images of which the central 87.5 % were resized "
        "bilinearly, without antialiasing."
    )


def _labels(row: Format, described: Mapping[str, Any]) -> str:
    labels: Sequence[str] = described.get("labels") or ()
    count = _classes(row, described)
    if not labels:
        return f"{count} classes, whose names are not known."
    labels = labels[len(labels) - (count or len(labels)) :]
    shown = ", ".join(
        f"{number} = {label}" for number, label in enumerate(labels[:_FEW])
    )
    more = "; all are in the manifest." if len(labels) > _FEW else "."
    return f"{count} classes: {shown}{more}"


def _parity(described: Mapping[str, Any]) -> str:
    found = described.get("parity")
    if not found:
        return "It was not compared with TF-Slim's network when it was made."
    images = ", ".join(
        f"{count} of {size}" for size, count in (found.get("images") or {}).items()
    )
    where = f"{described.get('compared_on')} ({images})" if images else "no images"
    weights = found.get("weights") or {}
    lines = [
        "When it was made, it was compared with TF-Slim's network, which holds the "
        f"checkpoint's weights, on {where}; {weights.get('count')} weights as well.",
        "",
        "| output | largest error, of the largest magnitude | limit | cosine, at least | "
        "limit |",
        "|---|---|---|---|---|",
    ]
    main = found["outputs"].get(found["main_output"])
    shown = {found["main_output"]: main} if main else {}
    for name, output in shown.items():
        limits = output["tolerance"]
        lines.append(
            f"| `{name}` | {_figure(output['relative_error'])} | "
            f"{limits['max_error']:g} | {_figure(output['cosine'])} | "
            f"{limits['min_cosine']:g} |"
        )
    if calibration := described.get("calibration"):
        lines += ["", f"Quantization was calibrated on {calibration}."]
    return "\n".join(lines)


def _budget(described: Mapping[str, Any]) -> str:
    """What was tried to meet a budget, and what was chosen."""
    trials: Sequence[Mapping[str, Any]] = described["budget"]
    kept = described["options"].get("keep_float") or []
    chosen = ", ".join(f"`{name}`" for name in kept) or "no block"
    is_scored = any("top_1" in trial for trial in trials)
    names = ["blocks in float", "error", "cosine"]
    names += ["top-1", "points lost"] if is_scored else []
    lines = [
        f"It was quantized to a budget; in float is {chosen}. On the same images"
        + (f", and top-1 on {described['top_1_counted_on']}:" if is_scored else ":"),
        "",
        f"| {' | '.join(names)} |",
        "|" + "---|" * len(names),
    ]
    for trial in trials:
        cells = [str(len(trial["keep_float"]))]
        cells += [_figure(trial["relative_error"]), _figure(trial["cosine"])]
        if is_scored:
            cells += [f"{100 * trial['top_1']:.2f} %", f"{trial['top_1_drop']:.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.6g}"


def _checkpoint(row: Format, described: Mapping[str, Any]) -> str:
    lines = [
        f"- File: `{described['checkpoint']['file']}`, {described['provenance']}",
        f"- Identity: `{described['checkpoint_identity']}`, a SHA-256 over the network's "
        "variables",
    ]
    if described.get("handle"):
        lines.append(f"- Published as: `{described['handle']}`")
    if described["options"]:
        options = json.dumps(row.completed(described["options"]), sort_keys=True)
        lines.append(f"- Options: `{options}`")
    versions = ", ".join(f"{k} {v}" for k, v in described["versions"].items())
    lines.append(f"- Made with: {versions}")
    return "\n".join(lines)
