"""Compares every number that an artifact holds with the checkpoint's.

What an artifact may differ by is never taken from the artifact: it follows from the
reference's weights and activations, and from the precision that the format promises.

1. The weights are those of the task, with the checkpoint's shapes.
2. They are stored in the numbers that the format promises.
3. float32 weights are the reference's, bit by bit.
4. float16 weights are the reference's, rounded to the nearest.
5. int8 and uint8 kernels have the scales that the reference's kernels call for, and are
   these kernels rounded to the nearest.
6. Biases of such kernels are in the numbers that the format promises, and differ from the
   reference's by what making good for the rounded kernel can do; int32 ones count in steps
   of input times kernel, and may differ by what rounding them does too.
7. Activations that the format rounds are rounded, and others are not.
8. Their ranges suit those that the reference's activations have on the images compared,
   and start at 0 if these are rectified, or lie around it if the format is symmetric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from exporters.artifact import StoredWeight
from exporters.network import quantization
from exporters.network.layers import (
    Add,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalMean,
    Network,
    Pool,
    Softmax,
    inputs_of,
)
from exporters.network.quantization import Precision, Quantization
from exporters.reference import Activations

_SCALE_TOLERANCE = 1e-5
"""Relative; scales are float32."""
_HALF_STEP = 0.5001
"""Half a step of rounding, and what float32 arithmetic on it may add."""
_FLOAT_ERROR = 1e-6
"""Relative, of a float32 sum."""
_MEANS_FACTOR = 4
"""How far the means of channels over the calibration images, by which a writer corrects
biases, may be above those of the images compared."""
_DEVIATIONS = 4
"""How far rounding errors of a kernel, which are as good as random, may add up."""
_LEAST_COVERED = 1 / 4
"""Part of the reference's range that rounded activations cover at least, on images that
they were not calibrated on."""
_MOST_COVERED = 16
"""Ranges larger than this many times the reference's lose four of eight bits."""


@dataclasses.dataclass(frozen=True)
class WeightParity:
    """How the artifact's weights agree with the checkpoint.

    Attributes:
      count: number of weight arrays that the checkpoint says there should be.
      wrong: what is wrong with each that does not agree.
    """

    count: int
    wrong: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.wrong


def compare_weights(
    found: Mapping[str, StoredWeight], expected: Mapping[str, np.ndarray]
) -> WeightParity:
    """Compares the weights of an artifact that holds the checkpoint's variables.

    Args:
      found: name -> weight in the artifact.
      expected: name -> float32 array.
    """
    wrong = _differing_names(found, expected)
    for name in expected.keys() & found.keys():
        problem = _float_problem(found[name], expected[name], np.float32)
        if problem:
            wrong.append(f"{name}: {problem}")
    return WeightParity(len(expected), tuple(sorted(wrong)))


def compare_folded_weights(
    found: Mapping[str, StoredWeight],
    expected: Mapping[str, np.ndarray],
    *,
    network: Network,
    precision: Precision,
    rounded: Mapping[str, Quantization],
    activations: Activations | None,
) -> WeightParity:
    """Compares the weights of an artifact that holds folded kernels and biases.

    Args:
      found: name -> weight in the artifact.
      expected: name -> float32 array.
      network: the whole network.
      precision: what the format promises.
      rounded: layer -> how the artifact rounds its output.
      activations: the reference's, where the format rounds activations.
    """
    found = {name: _as_expected(found[name], expected.get(name)) for name in found}
    wrong = _differing_names(found, expected)
    rounded = _with_flattened(network, rounded)
    in_float = precision.float_layers(network)
    for layer in network.weighted:
        names = f"{layer.scope}/weights", f"{layer.scope}/biases"
        if not all(name in found and name in expected for name in names):
            continue
        kernel, bias = (found[name] for name in names)
        expected_kernel, expected_bias = (expected[name] for name in names)
        if layer.name in in_float or precision.weights == "float32":
            problems = (
                _float_problem(kernel, expected_kernel, np.float32),
                _float_problem(bias, expected_bias, np.float32),
            )
        elif precision.weights == "float16":
            problems = (
                _float_problem(kernel, expected_kernel, np.float16),
                _float_problem(bias, expected_bias, np.float16),
            )
        elif precision.activations != "int8":
            if precision.weights == "uint8":
                low, high = expected_kernel.min(), expected_kernel.max()
                rounding = quantization.of_range(float(low), float(high))
            else:
                rounding = quantization.of_kernel(expected_kernel)
            problems = (
                _kernel_problem(kernel, expected_kernel, rounding),
                _float_problem(bias, expected_bias, np.float32),
            )
        else:
            assert activations is not None
            problems = _integer_problems(
                layer,
                kernel,
                bias,
                expected_kernel,
                expected_bias,
                rounded.get(layer.input),
                activations.largest_means[layer.input]
                * (1 if layer.input == network.input else _MEANS_FACTOR),
                precision,
            )
        wrong += [
            f"{name}: {problem}"
            for name, problem in zip(names, problems, strict=True)
            if problem
        ]
    return WeightParity(len(expected), tuple(sorted(wrong)))


def activation_problems(
    rounded: Mapping[str, Quantization],
    *,
    network: Network,
    precision: Precision,
    activations: Activations | None,
    input_range: tuple[float, float],
) -> list[str]:
    """Says in words what is wrong with how an artifact rounds activations.

    Args:
      rounded: layer -> how the artifact rounds its output.
      network: the part of the network that the artifact computes.
      precision: what the format promises.
      activations: the reference's, where the format rounds activations.
      input_range: values of black and white in the images that the artifact takes.
    """
    expected = precision.quantized_activations(network)
    by_name = {layer.name: layer for layer in network.layers}
    rectified = _rectified(network)
    rounded = _with_flattened(network, rounded)
    problems = [
        f"activation {name}: not rounded, as the format promises"
        for name in sorted(expected - rounded.keys())
        # In float where it is an output that people read.
        if not isinstance(by_name.get(name), Softmax)
    ]
    for name, found in rounded.items():
        if name not in expected:
            problems.append(f"activation {name}: rounded, which the format does not do")
            continue
        assert activations is not None
        layer = by_name.get(name)
        if isinstance(layer, Softmax):
            if found.zero_point != quantization.PROBABILITIES.zero_point or not (
                _are_close(found.scale, quantization.PROBABILITIES.scale)
            ):
                problems.append(f"activation {name}: not in steps of 1/256 from 0")
            continue
        is_input = name == network.input
        if problem := _range_problem(
            found,
            input_range if is_input else activations.ranges[name],
            must_equal=is_input,
            is_rectified=name in rectified,
            is_symmetric=precision.is_symmetric,
        ):
            problems.append(f"activation {name}: {problem}")
    return problems


def _rectified(network: Network) -> set[str]:
    """The layers that give nothing below 0, and what only joins or pools these."""
    found: set[str] = set()
    for layer in network.layers:
        match layer:
            case Conv() | Add():
                is_rectified = layer.relu
            case Pool() | Concat() | GlobalMean() | Flatten():
                is_rectified = all(name in found for name in inputs_of(layer))
            case _:
                is_rectified = False
        if is_rectified:
            found.add(layer.name)
    return found


def _range_problem(
    found: Quantization,
    wanted: tuple[float, float],
    *,
    must_equal: bool,
    is_rectified: bool,
    is_symmetric: bool,
) -> str | None:
    if found.scale.shape != (1,):
        return f"it has {found.scale.size} scales, expected one"
    if not (np.isfinite(found.scale) & (found.scale > 0)).all():
        return f"its scale is {found.scale[0]:g}"
    low, high = found.dequantize(np.array([-128, 127]))
    says = f"it ranges from {low:.4g} to {high:.4g}"
    if not low <= 0 <= high:
        return f"{says}, without 0"
    if is_symmetric and found.zero_point != 0:
        return f"its zero point is {found.zero_point}, expected 0"
    if must_equal:
        expected = quantization.of_range(*wanted, is_symmetric=is_symmetric)
        if not _are_close(found.scale, expected.scale) or (
            found.zero_point != expected.zero_point
        ):
            return f"{says}, expected {wanted[0]:g} to {wanted[1]:g}"
        return None
    step = found.scale[0]  # By which zero, to be exact, may move the ends.
    least = wanted[0] * _LEAST_COVERED + step, wanted[1] * _LEAST_COVERED - step
    span = wanted[1] - wanted[0]
    if is_symmetric:
        span = 2 * max(wanted[1], -wanted[0])
    largest_span = span * _MOST_COVERED or np.inf
    if (
        low > least[0]
        or high < least[1]
        or high - low > largest_span
        or (is_rectified and low < 0 and not is_symmetric)
    ):
        return f"{says}; the network's from {wanted[0]:.4g} to {wanted[1]:.4g}"
    return None


def _with_flattened(
    network: Network, rounded: Mapping[str, Quantization]
) -> dict[str, Quantization]:
    """Containers may have just one of two activations that hold the same numbers."""
    found = dict(rounded)
    for layer in network.layers:
        if isinstance(layer, Flatten):
            for name, same in (layer.name, layer.input), (layer.input, layer.name):
                if same in found:
                    found.setdefault(name, found[same])
    return found


def _as_expected(found: StoredWeight, expected: np.ndarray | None) -> StoredWeight:
    """A matrix may be stored as the kernel of a 1 x 1 convolution."""
    if expected is None or found.values.shape != (1, 1, *expected.shape):
        return found
    return dataclasses.replace(found, values=found.values[0, 0])


def _differing_names(
    found: Mapping[str, StoredWeight], expected: Mapping[str, np.ndarray]
) -> list[str]:
    return [f"{name}: unexpected" for name in found.keys() - expected.keys()] + [
        f"{name}: missing" for name in expected.keys() - found.keys()
    ]


def _type_problem(found: StoredWeight, expected: np.ndarray, dtype: type) -> str | None:
    if found.values.shape != expected.shape:
        return f"shape {list(found.values.shape)}, expected {list(expected.shape)}"
    if found.values.dtype != dtype:
        return f"stored as {found.values.dtype}, expected {np.dtype(dtype)}"
    return None


def _float_problem(
    found: StoredWeight, expected: np.ndarray, dtype: type
) -> str | None:
    if problem := _type_problem(found, expected, dtype):
        return problem
    wanted: np.ndarray = expected.astype(dtype)
    return _difference(found.values, wanted, found.values != wanted)


def _kernel_problem(
    found: StoredWeight, expected: np.ndarray, rounding: Quantization
) -> str | None:
    if problem := _type_problem(found, expected, np.int8):
        return problem
    given = found.quantization
    if (
        given is None
        or given.scale.shape != rounding.scale.shape
        or given.zero_point != rounding.zero_point
    ):
        each = "channel" if rounding.scale.size > 1 else "kernel"
        return f"not in steps of a scale for each {each}, from {rounding.zero_point}"
    if not _are_close(given.scale, rounding.scale):
        worst = np.abs(given.scale / rounding.scale - 1).max()
        return f"its scales differ from the checkpoint's by up to {worst:.3g}"
    values = given.dequantize(found.values)
    bad = ~(np.abs(values - expected) <= rounding.scale * _HALF_STEP)
    return _difference(values, expected, bad)


def _integer_problems(
    layer: Conv | Dense,
    kernel: StoredWeight,
    bias: StoredWeight,
    expected_kernel: np.ndarray,
    expected_bias: np.ndarray,
    source: Quantization | None,
    largest_means: np.ndarray,
    precision: Precision,
) -> tuple[str | None, str | None]:
    """What is wrong with the kernel, and with the bias, of a layer in integers.

    Its input has means that a writer may have made good for up to `largest_means`.
    """
    if source is None:
        return "computes with integers of an input that is not rounded", None
    is_float = precision.biases == "float32"
    rounding = quantization.of_kernel(
        expected_kernel,
        0.0 if is_float else expected_bias,
        float(source.scale[0]),
        precision.largest_weight,
    )
    if kernel_problem := _kernel_problem(kernel, expected_kernel, rounding):
        return kernel_problem, None
    if problem := _type_problem(
        bias, expected_bias, np.float32 if is_float else np.int32
    ):
        return None, problem
    step = rounding.scale * source.scale
    given = bias.quantization
    if is_float:
        if given is not None:
            return None, "counted in steps, expected float32"
        values = bias.values
        # float32 arithmetic adds little to the shift.
        least = np.abs(expected_bias) * _FLOAT_ERROR
    elif given is None or given.zero_point or not _are_close(given.scale, step):
        return None, "not in steps of input times kernel"
    else:
        values = given.dequantize(bias.values)
        least = step * _HALF_STEP
    assert kernel.quantization is not None
    moved = kernel.quantization.dequantize(kernel.values) - expected_kernel
    moved = moved.sum(axis=tuple(range(moved.ndim - 2)))
    shift = np.abs(moved.T @ largest_means)
    shift += _DEVIATIONS * np.sqrt(moved.T**2 @ largest_means**2)
    bad = ~(np.abs(values - expected_bias) <= least + shift)
    return None, _difference(values, expected_bias, bad)


def _are_close(found: np.ndarray, expected: np.ndarray) -> bool:
    return found.shape == expected.shape and bool(
        np.allclose(found, expected, rtol=_SCALE_TOLERANCE, atol=0)
    )


def _difference(found: np.ndarray, expected: np.ndarray, bad: np.ndarray) -> str | None:
    if not bad.any():
        return None
    error = np.abs(found[bad].astype(np.float64) - expected[bad])
    return (
        f"{np.count_nonzero(bad)} of {bad.size} values differ, by up to "
        f"{np.max(error):.3g}"
    )
