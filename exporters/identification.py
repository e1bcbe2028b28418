"""Identifying: whose weights are in a file, whatever tool made it?"""

from __future__ import annotations

import collections
import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from checkpoints.errors import CheckpointError
from checkpoints.files import PathLike, as_paths
from checkpoints.reader import Checkpoint, open_checkpoint
from exporters.errors import ArtifactError
from exporters.identifying import matching, networks, reading
from exporters.identifying.contents import Contents, StoredArray, kernels_in
from exporters.identifying.matching import Match, Vectors
from exporters.identifying.networks import KnownNetwork
from exporters.network import layers
from exporters.network.layers import Dense, Network
from exporters.network.tasks import AUXILIARY_CLASSIFICATION, TASKS
from exporters.progress import STAND_IN, Note, Progress, Step, silent

SAME = "same"
FINE_TUNED = "fine-tuned"
REARRANGED = "rearranged"
PARTLY = "partly"
UNRELATED = "unrelated"

_OTHER = "another network"
_LEAST_PRESENT = 0.9
"""Part of a network's kernels, by their sizes, that make a file one of it."""
_LEAST_FINE_TUNED = 0.5
"""Part of the kernels that have a common origin, from which the whole has one."""
_LEAST_RELATED = 0.05
"""Part of the kernels that are alike by chance at most."""
_ZERO_MEAN = 2e-3
"""Largest |mean| of a stand-in's channel, relative to its kernel's deviation, in half
precision; means of trained ones are many times larger."""
_MOST_DEVIATIONS = 5
"""By which the mean of random errors is off at most."""
_REPEATED = re.compile(r"(.*/(?:block35|block17|block8)_)(\d+)(/.*)")
_CLASSIFIER = "InceptionResnetV2/Logits/Logits"
_AUXILIARY_CLASSIFIER = "InceptionResnetV2/AuxLogits/Logits"


@dataclasses.dataclass(frozen=True)
class LayerDifference:
    """A layer that is not as the checkpoint has it.

    Attributes:
      layer: its scope in TF-Slim's definition.
      what: "kernel", "vectors" (biases and batch norm), "missing" (nothing like it is
        there) or "place" (it is where another should be).
      difference: relative, the norm of the difference by that of the checkpoint's; None
        where there is nothing to compare.
    """

    layer: str
    what: str
    difference: float | None = None


@dataclasses.dataclass(frozen=True)
class IdentifiedFile:
    """What came of one file.

    Attributes:
      path: the file or directory.
      error: why it could not be read; None if it could, and the rest holds.
      form: what kind of file it is.
      network: name of the network, or "another network".
      confidence: of `network`: "certain" where all of its kernels are there, by their
        sizes, "likely" where nine tenths are, "none" otherwise.
      kernels: number of kernels in the file.
      numbers: in these kernels.
      precision: dtypes of the kernels, that of most numbers first.
      is_folded: whether batch norm is folded into them; None where that is not known.
      input_range: values of black and white in the images it takes; None where that is
        not known.
      classes: width of the classifier, None if there is none.
      has_auxiliary_head: whether the auxiliary head is there as well.
      is_stand_in: whether the kernels are generated ones.
      relation: to the checkpoint: "same", "fine-tuned", "rearranged", "partly" or
        "unrelated"; None if there was none to compare with, or it is another network.
      matched: number of layers whose kernels have a common origin.
      compared: number of layers that were looked for.
      differences: layers that are not as the checkpoint has them, in network order.
      first_class: of the checkpoint's that the file has; those before are left out.
      not_compared: what the checkpoint lacks, and the file has: a classifier.
    """

    path: Path
    error: str | None = None
    form: str = ""
    network: str = _OTHER
    confidence: str = "none"
    kernels: int = 0
    numbers: int = 0
    precision: tuple[str, ...] = ()
    is_folded: bool | None = None
    input_range: tuple[float, float] | None = None
    classes: int | None = None
    has_auxiliary_head: bool = False
    is_stand_in: bool = False
    relation: str | None = None
    matched: int = 0
    compared: int = 0
    differences: tuple[LayerDifference, ...] = ()
    first_class: int = 0
    not_compared: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The file as JSON values."""
        facts = dataclasses.asdict(self)
        return {**facts, "path": str(self.path)}


@dataclasses.dataclass(frozen=True)
class Identification:
    """What came of all files.

    Attributes:
      checkpoint: path of the checkpoint, None if there was none.
      checkpoint_identity: of its weights.
      files: in their order.
    """

    checkpoint: Path | None
    checkpoint_identity: str | None
    files: tuple[IdentifiedFile, ...]

    def as_dict(self) -> dict[str, Any]:
        """The identification as JSON values."""
        return {
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "checkpoint_identity": self.checkpoint_identity,
            "files": [file.as_dict() for file in self.files],
        }


def identify(
    files: PathLike | Iterable[PathLike],
    checkpoint: PathLike | Checkpoint | None = None,
    *,
    moving_averages: str | None = None,
    progress: Progress = silent,
) -> Identification:
    """Finds out which network files hold, in what form, and whose weights.

    Files may be ONNX, TFLite, SavedModels, frozen graphs, checkpoints, HDF5, .keras,
    safetensors or state dicts of PyTorch, of any tool. Names are not looked at: the
    network is told by the sizes of kernels, the weights by their values.

    Args:
      files: files, and directories of SavedModels.
      checkpoint: as `checkpoints.reader.open_checkpoint` takes it, or what it returned;
        None for none, and so for no answer to whose weights these are.
      moving_averages: "use" or "ignore" those of a training checkpoint.
      progress: told what is done.

    Returns:
      What came of each file. One that cannot be read is a result too.

    Raises:
      CheckpointError, CheckpointLayoutError, ArchiveError: no checkpoint of the network.
      OSError: the checkpoint cannot be read.
    """
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        progress(Step(f"read {checkpoint}"))
        checkpoint = open_checkpoint(Path(checkpoint), moving_averages=moving_averages)
    if checkpoint is not None:
        for note in checkpoint.notes:
            progress(Note(note))
        if checkpoint.is_stand_in:
            progress(STAND_IN)
    paths = as_paths(files)
    done = []
    for number, path in enumerate(paths, start=1):
        name = f"[{number}/{len(paths)}] {path}"
        progress(Step(name, "read"))
        found = _identify_one(path, checkpoint, name, progress)
        answer = found.relation or found.network
        passed = found.error is None
        progress(Step(name, answer if passed else "cannot be read", passed=passed))
        done.append(found)
    return Identification(
        checkpoint=checkpoint.path if checkpoint else None,
        checkpoint_identity=checkpoint.identity if checkpoint else None,
        files=tuple(done),
    )


def _identify_one(
    path: Path, checkpoint: Checkpoint | None, name: str, progress: Progress
) -> IdentifiedFile:
    try:
        contents = reading.read(path)
    except (ArtifactError, CheckpointError) as error:
        told = str(error) if str(path) in str(error) else f"{path}: {error}"
        return IdentifiedFile(path, error=told)
    except OSError as error:
        if error.errno is None:
            raise
        return IdentifiedFile(path, error=f"{error.filename}: {error.strerror}")
    found = of_contents(path, contents)
    if checkpoint is None or found.network in (_OTHER, networks.VERSION_1):
        return found
    progress(Step(name, "compare"))
    return compared(found, contents, checkpoint)


def of_contents(path: Path, contents: Contents) -> IdentifiedFile:
    """Returns what can be told without a checkpoint."""
    kernels = list(kernels_in(contents.arrays))
    keys = collections.Counter(networks.key_of(k.values.shape) for k in kernels)
    # Networks have parts in common: many kernels should be there, and few lacking.
    known = max(
        networks.known(),
        key=lambda each: 2 * (each.kernels & keys).total() - each.kernels.total(),
    )
    present = (known.kernels & keys).total() / known.kernels.total()
    network, confidence, classes = _OTHER, "none", None
    if present >= _LEAST_PRESENT:
        network = known.name
        confidence = "certain" if present == 1 else "likely"
        classes = _classes(kernels, known)
    numbers: collections.Counter[str] = collections.Counter()
    for kernel in kernels:
        numbers[kernel.dtype] += kernel.values.size
    vectors = sum(array.is_vector for array in contents.arrays)
    return IdentifiedFile(
        path,
        form=contents.form,
        network=network,
        confidence=confidence,
        kernels=len(kernels),
        numbers=numbers.total(),
        precision=tuple(dtype for dtype, _ in numbers.most_common()),
        # One bias each, or two vectors of batch norm and more.
        is_folded=vectors < 3 / 2 * len(kernels) if network != _OTHER else None,
        classes=classes,
        has_auxiliary_head=network == networks.THIS
        and networks.auxiliary_only() <= keys,
        is_stand_in=_are_generated(kernels),
    )


def _classes(kernels: Sequence[StoredArray], known: KnownNetwork) -> int | None:
    """How many numbers the layer that reads the features gives."""
    keys = [networks.key_of(kernel.values.shape) for kernel in kernels]
    for key in keys:
        if len(key) == 2 and known.features in key and key not in known.kernels:
            return key[0] if key[1] == known.features else key[1]
    return 1 if (known.features,) in keys else None


def _are_generated(kernels: Sequence[StoredArray]) -> bool:
    """Whether most kernels have the means of zero that only stand-ins have."""
    generated = sum(map(_is_generated, kernels))
    return 2 * generated > len(kernels)


def _is_generated(kernel: StoredArray) -> bool:
    values = kernel.values
    deviation = float(values.std())
    if not np.isfinite(deviation):
        return False
    for axis in (-1, 0):
        others = tuple(np.delete(np.arange(values.ndim), axis))
        channels = np.abs(values.mean(axis=others, dtype=np.float64))
        # Errors of rounding, whose mean is that of as many numbers.
        moved = kernel.rounding / np.sqrt(values.size / values.shape[axis])
        if channels.max() <= _ZERO_MEAN * deviation + _MOST_DEVIATIONS * moved:
            return True
    return False


def compared(
    found: IdentifiedFile, contents: Contents, checkpoint: Checkpoint
) -> IdentifiedFile:
    """Returns the same, with what comparing with a checkpoint tells.

    Args:
      found: what `of_contents` told, of this network or its auxiliary classifier.
      contents: of the file.
      checkpoint: whose weights to look for.
    """
    network, first_class = _part(found, checkpoint)
    arrays = contents.in_order_of_use()
    matches = matching.match(arrays, network, checkpoint, first_class)
    vectors = matching.find_vectors(arrays, network, checkpoint, matches, first_class)
    by_layer = {one.layer: one for one in matches}
    scopes = [layer.scope for layer in network.weighted]
    misplaced = set(_misplaced(matches))
    differences: list[LayerDifference] = []
    for scope in scopes:
        differences += _differences(scope, by_layer.get(scope), vectors, misplaced)
    not_compared = []
    if found.classes and not any(isinstance(x, Dense) for x in network.weighted):
        if found.network == networks.AUXILIARY:
            classifier, is_there = _AUXILIARY_CLASSIFIER, checkpoint.has_auxiliary_head
        else:
            classifier, is_there = _CLASSIFIER, checkpoint.num_classes is not None
        if is_there:  # Of other classes, and so another one.
            scopes.append(classifier)
            differences.append(LayerDifference(classifier, "missing"))
        else:
            not_compared.append(classifier)
    folded = [one.is_folded for one in matches if one.is_folded is not None]
    is_folded = 2 * sum(folded) > len(folded) if folded else found.is_folded
    return dataclasses.replace(
        found,
        is_folded=is_folded,
        input_range=_input_range(contents, network, by_layer),
        relation=_relation(len(matches), len(scopes), differences),
        matched=len(matches),
        compared=len(scopes),
        first_class=first_class,
        differences=tuple(differences),
        not_compared=tuple(not_compared),
    )


def _part(found: IdentifiedFile, checkpoint: Checkpoint) -> tuple[Network, int]:
    """The part of the network to look for, and the first class of it."""
    has_head = checkpoint.has_auxiliary_head
    whole = layers.inception_resnet_v2(checkpoint.num_classes, auxiliary_head=has_head)
    first_class, has_classes = 0, False
    if found.classes and checkpoint.num_classes:
        first_class = checkpoint.num_classes - found.classes
        has_classes = first_class in (0, 1)
    first_class = first_class if has_classes else 0
    features = TASKS["feature_vector"].endpoint
    if found.network == networks.AUXILIARY:
        if has_head and has_classes:
            return whole.up_to([AUXILIARY_CLASSIFICATION.endpoint]), first_class
        return whole.up_to(["PreAuxLogits"]), 0
    endpoints = [TASKS["classification"].endpoint if has_classes else features]
    if has_head and has_classes and found.has_auxiliary_head:
        endpoints.append(AUXILIARY_CLASSIFICATION.endpoint)
    return whole.up_to(endpoints), first_class


def _differences(
    scope: str,
    one: Match | None,
    vectors: Mapping[str, Vectors],
    misplaced: set[str],
) -> Iterator[LayerDifference]:
    if one is None:
        yield LayerDifference(scope, "missing")
        return
    if not one.is_same:
        yield LayerDifference(scope, "kernel", one.difference)
    elif not vectors[scope].is_same:
        yield LayerDifference(scope, "vectors", vectors[scope].difference)
    if scope in misplaced:
        yield LayerDifference(scope, "place")


def _misplaced(matches: Sequence[Match]) -> Iterator[str]:
    """Layers of repeated blocks whose kernels come in another order than the blocks.

    Blocks that are in each other's places are so with all of their layers. Where most
    layers of a kind of block come in orders of their own, the file is in no order.
    """
    families: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for one in matches:
        if repeated := _REPEATED.fullmatch(one.layer):
            block, number, rest = repeated.groups()
            orders = families.setdefault(block, {})
            orders.setdefault(rest, []).append((int(number), one.layer))
    for orders in families.values():
        found = [tuple(number for number, _ in order) for order in orders.values()]
        ((_, count),) = collections.Counter(found).most_common(1)
        if 2 * count <= len(found):
            continue
        for order in orders.values():
            for (number, layer), (expected, _) in zip(order, sorted(order)):
                if number != expected:
                    yield layer


def _relation(matched: int, compared: int, differences: Sequence[Any]) -> str:
    if matched < _LEAST_RELATED * compared or not matched:
        return UNRELATED
    if matched < _LEAST_FINE_TUNED * compared:
        return PARTLY
    if not differences:
        return SAME
    if all(difference.what == "place" for difference in differences):
        return REARRANGED
    return FINE_TUNED


def _input_range(
    contents: Contents, network: Network, matches: Mapping[str, Match]
) -> tuple[float, float] | None:
    """Values of black and white in the images that a file takes.

    The first kernel tells which range it takes: it is larger by 2 / (white - black) than
    the checkpoint's, which takes [-1, 1]. What comes before it in the graph tells how
    images get there.
    """
    first = next(layer for layer in network.weighted if layer.input == network.input)
    one = matches.get(first.scope)
    before = contents.before(one.array) if one else None
    if one is None or one.factor is None or (contents.nodes and before is None):
        return None
    is_own = abs(one.factor - 1) < 1e-2
    black = -1.0 if is_own else 0.0
    white = black + 2 / one.factor
    scale, offset = (1.0, 0.0)
    if before is not None:
        scale, offset = float(before.scale.mean()), float(before.offset.mean())
        if not np.allclose(before.scale, scale, rtol=1e-3) or not scale:
            return None
    low, high = (black - offset) / scale, (white - offset) / scale
    return round(low, 2) + 0.0, round(high, 2) + 0.0
