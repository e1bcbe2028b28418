"""Whose numbers are these? Kernels of a file, matched with those of a checkpoint.

Two kernels are compared channel by channel, by the cosine of the angle between them after
their means are taken away. Nothing that a converter does to a channel as a whole changes
it: batch norm's gain, the scale of a residual, the range of images, the steps and the zero
point of rounding. Axes are tried in the orders that formats have. Kernels of unrelated
networks have angles of chance, which for the hundreds of numbers of a channel, and all
channels together, are near 90 degrees.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from exporters.identifying.contents import StoredArray, kernels_in
from exporters.identifying.networks import Key, key_of
from exporters.network.inception_resnet_v2 import BATCH_NORM_EPSILON
from exporters.network.layers import Conv, Dense, Network

_ORDERS = {
    4: ((0, 1, 2, 3), (2, 3, 1, 0), (1, 2, 3, 0)),  # HWIO; OIHW; OHWI
    2: ((0, 1), (1, 0)),
}
LEAST_RELATED = 0.3
"""Cosine from which two kernels have a common origin. By chance, those of the smallest
kernel have at most 0.2."""
_FLOAT_ERROR = {"float64": 2e-5, "float32": 2e-5, "float16": 1e-3, "bfloat16": 8e-3}
"""Relative error of a kernel by its dtype, and what folding it in another order adds."""
_NUMBER_ERRORS = {"float16": 2e-3, "bfloat16": 1.6e-2}
"""Relative error of a number by its dtype, of two roundings."""
_KERNEL_ERROR = 1e-5
"""Of any number, relative to the largest of its channel; folding in float32 adds it."""
_STEPS = 1.01
"""Error of a number in steps of its integers: half of one by rounding to the nearest, and
one at the ends of their range."""
_COARSEST = 1.05 * 2 / 255
"""Step of integers, relative to the largest number of a kernel: of a scale for the whole
kernel. Coarser ones explain nothing."""
_ROUNDING = 1.5
"""Root of the mean square of what rounding to integers adds, and half more."""
_VECTOR_ERRORS = {"float64": 1e-4, "float32": 1e-4, "float16": 5e-3, "bfloat16": 3e-2}
_INTEGER_VECTOR_ERROR = 0.25
"""Biases may be corrected for what rounding the kernels did to means."""
_LARGEST_VECTOR_ERROR = 0.9
"""Whatever their steps: those that are all 0 are off by 1."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A kernel of a file, and the layer of the network that it is most like.

    Attributes:
      layer: scope of the layer.
      array: name of the kernel in the file.
      dtype: in which it is stored.
      cosine: how alike they are, channels of equal weight; 1 is the same direction.
      difference: relative difference, of what both stand for; without scales where the
        file does not say these.
      tolerance: what its dtype explains of the difference.
      wrong: how many of its numbers differ by more than its dtype explains.
      is_folded: whether batch norm's gain is in the kernel; None where the layer has
        none, or it cannot be told.
      factor: by how much the kernel is larger than the checkpoint's, after the gain.
    """

    layer: str
    array: str
    dtype: str
    cosine: float
    difference: float
    tolerance: float
    wrong: int
    is_folded: bool | None
    factor: float | None

    @property
    def is_same(self) -> bool:
        """Whether the dtype explains all of the difference."""
        return self.difference <= self.tolerance and not self.wrong


def match(
    arrays: Sequence[StoredArray],
    network: Network,
    variables: Mapping[str, np.ndarray],
    first_class: int = 0,
) -> list[Match]:
    """Finds each layer's kernel among the arrays of a file.

    Args:
      arrays: of the file.
      network: the layers to look for.
      variables: name in TF-Slim's definition -> array, of the checkpoint.
      first_class: of the checkpoint's classes that the file has.

    Returns:
      What was found, in the order of the file's arrays. An array is that of one layer.
    """
    by_key: dict[Key, list[tuple[int, StoredArray]]] = collections.defaultdict(list)
    for position, array in enumerate(kernels_in(arrays)):
        by_key[key_of(array.values.shape)].append((position, array))
    groups: dict[Key, list[_Target]] = collections.defaultdict(list)
    for layer in network.weighted:
        target = _Target.of(layer, variables, first_class, layer.input == network.input)
        groups[key_of(target.kernel.shape)].append(target)
    found: dict[int, Match] = {}
    for key, targets in groups.items():
        for position, one in _match_group(by_key.get(key, []), targets):
            found[position] = one
    return [found[position] for position in sorted(found)]


@dataclasses.dataclass(frozen=True)
class _Target:
    """What a layer's kernel is in the checkpoint, float64 [..., channels]."""

    layer: Conv | Dense
    kernel: np.ndarray
    directions: np.ndarray
    gain: np.ndarray | None
    reads_images: bool

    @classmethod
    def of(
        cls,
        layer: Conv | Dense,
        variables: Mapping[str, np.ndarray],
        first_class: int,
        reads_images: bool,
    ) -> _Target:
        kernel = variables[f"{layer.scope}/weights"]
        gain = None
        if isinstance(layer, Dense):
            kernel = kernel[:, first_class:]
        elif layer.normalized:
            gain = gain_of(layer, variables)
        return cls(layer, kernel, _directions(kernel), gain, reads_images)


def gain_of(layer: Conv, variables: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns what batch norm multiplies each channel by."""
    variance = variables[f"{layer.scope}/BatchNorm/moving_variance"]
    return 1 / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)


def _directions(kernel: np.ndarray) -> np.ndarray:
    """Channels without their means, of length 1: float32 [numbers, channels]."""
    flat = kernel.reshape(-1, kernel.shape[-1]).astype(np.float32)
    flat = flat - flat.mean(axis=0)
    lengths = np.linalg.norm(flat, axis=0)
    return flat / np.where(lengths > 0, lengths, 1)


def _match_group(
    arrays: Sequence[tuple[int, StoredArray]], targets: Sequence[_Target]
) -> Iterator[tuple[int, Match]]:
    """Matches arrays with layers of kernels of one key, the most alike first."""
    candidates = []
    for position, array in arrays:
        for shape in {target.kernel.shape for target in targets}:
            for kernel in _oriented(array.values, shape):
                directions = _directions(kernel)
                for number, target in enumerate(targets):
                    if target.kernel.shape == shape:
                        cosine = float(np.vdot(directions, target.directions))
                        cosine = abs(cosine) / shape[-1]
                        candidates.append((cosine, position, number, array, kernel))
    candidates.sort(key=lambda candidate: -candidate[0])
    taken: set[int] = set()
    used: set[int] = set()
    for cosine, position, number, array, kernel in candidates:
        if cosine < LEAST_RELATED:
            return
        if position not in used and number not in taken:
            used.add(position)
            taken.add(number)
            yield position, _compared(array, kernel, targets[number], cosine)


def _oriented(values: np.ndarray, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """An array with its axes in those orders that give a shape."""
    squeezed = values
    if len(shape) == 2 and values.ndim == 4:
        squeezed = values.reshape([size for size in values.shape if size != 1])
    elif len(shape) == 4 and values.ndim == 2 and shape[:2] == (1, 1):
        squeezed = values.reshape(1, 1, *values.shape)
        if squeezed.shape == shape:
            yield squeezed
        if squeezed.shape[:1:-1] == shape[2:]:
            yield squeezed.transpose(0, 1, 3, 2)
        return
    for order in _ORDERS.get(squeezed.ndim, ()):
        turned = squeezed.transpose(order)
        if turned.shape == shape:
            yield turned


def _compared(
    array: StoredArray, kernel: np.ndarray, target: _Target, cosine: float
) -> Match:
    shape = (-1, kernel.shape[-1])
    found = np.ascontiguousarray(kernel, np.float64).reshape(shape)
    wanted = target.kernel.astype(np.float64).reshape(shape)
    # |f - h w|^2 of a channel, for any h: the sums of f^2, f w and w^2 are enough.
    squares, products, wanted_squares = (
        np.einsum("nc,nc->c", a, b)
        for a, b in ((found, found), (found, wanted), (wanted, wanted))
    )
    ratios = products / np.where(wanted_squares > 0, wanted_squares, 1)

    def difference(factors: np.ndarray) -> float:
        error = squares - 2 * factors * products + factors**2 * wanted_squares
        size = np.sum(factors**2 * wanted_squares)
        return float(np.sqrt(max(0.0, error.sum()) / (size or 1)))

    # In steps, and perhaps from a zero point, that the file does not say.
    best = _Hypothesis(_difference_of_directions(kernel, target), None, None)
    wrong = 0
    if not array.is_integer or array.steps is not None:
        gains: dict[bool | None, np.ndarray] = {None: np.ones_like(ratios)}
        if target.gain is not None:
            gains = {False: np.ones_like(ratios), True: target.gain}
        best = min(
            (
                _Hypothesis(difference(gain * factor), is_folded, factor)
                for is_folded, gain in gains.items()
                for factor in _factors(target, ratios, gain)
            ),
            key=lambda hypothesis: hypothesis.difference,
        )
        assert best.factor is not None
        wanted *= gains[best.is_folded] * best.factor
        wrong = int(np.count_nonzero(np.abs(found - wanted) > _limit(array, wanted)))
    return Match(
        layer=target.layer.scope,
        array=array.name,
        dtype=array.dtype,
        cosine=cosine,
        difference=best.difference,
        tolerance=_tolerance(array, found, float(np.abs(wanted).max())),
        wrong=wrong,
        is_folded=best.is_folded,
        factor=best.factor,
    )


def _difference_of_directions(kernel: np.ndarray, target: _Target) -> float:
    """The part of a kernel that is in no direction of the checkpoint's channels."""
    cosines = np.einsum("nc,nc->c", _directions(kernel), target.directions)
    return float(np.sqrt(max(0.0, 1 - np.mean(np.square(cosines)))))


class _Hypothesis(NamedTuple):
    """What may have been done to a kernel, and how much that leaves unexplained."""

    difference: float
    is_folded: bool | None
    factor: float | None


def _factors(target: _Target, ratios: np.ndarray, gain: np.ndarray) -> Iterator[float]:
    yield 1.0
    scale = target.layer.scale if isinstance(target.layer, Conv) else 1.0
    if scale != 1:
        yield scale
    if target.reads_images:  # Any range of images may be part of it.
        yield float(np.median(ratios / gain))


def _tolerance(array: StoredArray, found: np.ndarray, largest: float) -> float:
    """What storing a kernel, [numbers, channels], changes, relative to its size."""
    if not array.is_integer:
        return _FLOAT_ERROR.get(array.dtype, 2e-5)
    sizes = found.std(axis=0)
    if array.steps is None:  # Channels count alike, whatever their size.
        sizes = np.maximum(sizes, array.rounding)
        return float(_ROUNDING * np.sqrt(np.mean((array.rounding / sizes) ** 2)))
    rounding = min(array.rounding, _COARSEST * largest / np.sqrt(12))
    return float(_ROUNDING * rounding / (np.sqrt(np.mean(sizes**2)) or 1.0))


def _limit(array: StoredArray, wanted: np.ndarray) -> np.ndarray:
    """How far each number may be from what is wanted, [numbers, channels]."""
    magnitudes = np.abs(wanted)
    limit = _KERNEL_ERROR * magnitudes.max(axis=0)
    if array.steps is not None:
        is_by_channel = array.steps.size == wanted.shape[1]
        steps = array.steps.reshape(-1) if is_by_channel else array.steps.max()
        return limit + _STEPS * np.minimum(steps, _COARSEST * magnitudes.max())
    return limit + _NUMBER_ERRORS.get(array.dtype, 0.0) * magnitudes


@dataclasses.dataclass(frozen=True)
class Vectors:
    """How the vectors of a layer, its biases and batch norm, are found in a file.

    Attributes:
      difference: the largest relative difference of what was nearest, None if there was
        nothing of its length.
      tolerance: what its dtype explains.
    """

    difference: float | None
    tolerance: float

    @property
    def is_same(self) -> bool:
        """Whether the dtype explains all of the difference."""
        return self.difference is not None and self.difference <= self.tolerance


def find_vectors(
    arrays: Sequence[StoredArray],
    network: Network,
    variables: Mapping[str, np.ndarray],
    matches: Sequence[Match],
    first_class: int = 0,
) -> dict[str, Vectors]:
    """Finds the vectors of matched layers among those of a file, by their values.

    Args:
      arrays: of the file.
      network: its layers.
      variables: of the checkpoint.
      matches: the kernels that were found.
      first_class: of the checkpoint's classes that the file has.

    Returns:
      Scope of each layer -> its vectors.
    """
    pools: dict[int, list[StoredArray]] = collections.defaultdict(list)
    for array in arrays:
        if array.is_vector:
            pools[array.values.size].append(array)
    stacks = {size: _stack(pool) for size, pool in pools.items()}
    layers = {layer.scope: layer for layer in network.weighted}
    found = {}
    for one in matches:
        layer = layers[one.layer]
        choices = _wanted(layer, variables, one, first_class)
        results = [_nearest(wanted, pools, stacks) for wanted in choices]
        found[one.layer] = min(
            results,
            key=lambda v: np.inf if v.difference is None else v.difference,
        )
    return found


def _stack(pool: Sequence[StoredArray]) -> np.ndarray:
    return np.stack([array.values.reshape(-1) for array in pool]).astype(np.float64)


def _wanted(
    layer: Conv | Dense,
    variables: Mapping[str, np.ndarray],
    one: Match,
    first_class: int,
) -> list[list[np.ndarray]]:
    """The sets of vectors that a layer may have, of which one is to be there."""
    if isinstance(layer, Dense) or not layer.normalized:
        biases = variables[f"{layer.scope}/biases"].astype(np.float64)
        if isinstance(layer, Dense):
            return [[biases[first_class:]]]
        return [[biases * layer.scale], [biases]]
    gain = gain_of(layer, variables)
    beta, mean, variance = (
        variables[f"{layer.scope}/BatchNorm/{name}"].astype(np.float64)
        for name in ("beta", "moving_mean", "moving_variance")
    )
    folded = beta - mean * gain
    kernel = variables[f"{layer.scope}/weights"].astype(np.float64)
    sums = kernel.sum(axis=(0, 1, 2)) * gain
    choices = [[folded], [gain, folded], [beta, mean, variance]]
    if one.is_folded is not False:
        # Images that are not in [-1, 1] move the first biases.
        choices = [[folded - sums], *choices] if one.factor != 1 else choices
    return choices if one.is_folded is None else _only(choices, bool(one.is_folded))


def _only(choices: list[list[np.ndarray]], is_folded: bool) -> list[list[np.ndarray]]:
    return [vectors for vectors in choices if (len(vectors) == 1) == is_folded]


def _nearest(
    wanted: Sequence[np.ndarray],
    pools: Mapping[int, Sequence[StoredArray]],
    stacks: Mapping[int, np.ndarray],
) -> Vectors:
    worst, tolerance = 0.0, 0.0
    for vector in wanted:
        if vector.size not in pools:
            return Vectors(None, 0.0)
        errors = np.linalg.norm(stacks[vector.size] - vector, axis=1)
        errors /= np.linalg.norm(vector) or 1
        place = int(errors.argmin())
        array = pools[vector.size][place]
        limit = _vector_limit(array, vector)
        if errors[place] >= worst:
            worst, tolerance = float(errors[place]), limit
    return Vectors(worst, tolerance)


def _vector_limit(array: StoredArray, vector: np.ndarray) -> float:
    """What an array's dtype explains of how it differs from a vector, relative."""
    if not array.is_integer:
        return _VECTOR_ERRORS.get(array.dtype, 1e-4)
    size = float(np.sqrt(np.mean(np.square(vector)))) or 1.0
    rounding = _ROUNDING * array.rounding / size if array.steps is not None else 0.0
    return min(_INTEGER_VECTOR_ERROR + rounding, _LARGEST_VECTOR_ERROR)
