"""The rules by which variables of a checkpoint are those of inception_resnet_v2.

1. The network's variables have the names and shapes of TF-Slim's definition, in one
   scope, which may be under a prefix. They are float32, and none may be missing, but for
   what 2 and 3 say.
2. The classifier may have any number of classes, or be missing.
3. So may the auxiliary head, which has no part in features and logits. One that does not
   fit, made for another image size or other classes, counts as missing.
4. What is below a variable's name was kept for its training: its moving average, named
   `<variable>/ExponentialMovingAverage`, or an optimizer's slot, whatever its name.
   Moving averages can take the places of their variables; slots are not used.
5. Anything else in the network's scope would change what it computes: an error. So
   would a choice between several moving averages of a variable.
6. Anything outside is not the network's, and not used: the step, learning rates, losses.

The identity of a checkpoint is over the variables that these rules leave, under the names
of the definition, and without the auxiliary head: the network as it is used, whatever it
is stored in, and beside what.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib.resources
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np

from checkpoints.errors import CheckpointError
from checkpoints.tensors import Spec

Variables = Mapping[str, Spec] | Mapping[str, np.ndarray]
"""Arrays, or what they are without their values, by name."""

_CLASSIFIER = "InceptionResnetV2/Logits/"
_AUXILIARY_HEAD = "InceptionResnetV2/AuxLogits/"
_OF_EACH_CLASS = (f"{_CLASSIFIER}Logits/", f"{_AUXILIARY_HEAD}Logits/")
_MOVING_AVERAGE = "ExponentialMovingAverage"
_STEP = "global_step"
_STEP_SPECS = (Spec("int64", ()), Spec("int32", ()))
_DEPTH = 7  # of the longest names of the definition

_MAX_LINES = 4  # for each kind of problem


class CheckpointLayoutError(CheckpointError):
    """A checkpoint whose variables are not those of inception_resnet_v2."""


class MovingAveragesError(CheckpointError):
    """A checkpoint that needs to be told whether to use moving averages, or has none."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a checkpoint has the network, and what else it has.

    Attributes:
      stored_names: name in the definition -> name in the checkpoint, of all variables
        that are used.
      prefix: what the checkpoint puts before the names of the definition.
      step: name of the variable that counts the steps of training, if there is one.
      moving_averages: "use" or "ignore", None if there are none.
      slots: how many variables are kept for the network's training, and not used.
      ignored: how many others are not the network's.
      notes: what a user should know of all that, a sentence each.
    """

    stored_names: Mapping[str, str]
    prefix: str
    step: str | None
    moving_averages: str | None
    slots: int
    ignored: int
    notes: tuple[str, ...]


@functools.cache
def variable_shapes() -> Mapping[str, tuple[int, ...]]:
    """Returns name -> shape of the published variables, all of them float32.

    The list was enumerated from TF-Slim's definition of the network. It includes the
    auxiliary head and the 1001-class classifier: 59,244,594 numbers in all.
    """
    text = (importlib.resources.files("checkpoints") / "data/variables.tsv").read_text()
    shapes = {}
    for line in text.splitlines():
        name, shape, _ = line.split("\t")
        shapes[name] = tuple(int(size) for size in shape.split("x"))
    return MappingProxyType(shapes)


def num_classes(variables: Variables) -> int | None:
    """Returns how many classes a network's classifier has, None if it has none."""
    return _classes(variables, _CLASSIFIER)


def has_auxiliary_head(variables: Variables) -> bool:
    """Returns whether a network has the auxiliary head."""
    return _classes(variables, _AUXILIARY_HEAD) is not None


def without(
    variables: Mapping[str, np.ndarray], *, classifier: bool = False
) -> dict[str, np.ndarray]:
    """Returns a network's variables without the auxiliary head's.

    Args:
      variables: name in the definition -> array.
      classifier: leave the classifier's out as well, so that features remain.
    """
    left_out = (_AUXILIARY_HEAD, _CLASSIFIER) if classifier else _AUXILIARY_HEAD
    return {n: value for n, value in variables.items() if not n.startswith(left_out)}


def recognize(
    specs: Mapping[str, Spec], source: str, moving_averages: str | None = None
) -> Layout:
    """Finds the network among a checkpoint's variables, by the rules of this module.

    Args:
      specs: variable name -> dtype and shape.
      source: what to call the checkpoint in errors, usually its path.
      moving_averages: "use" puts them in the places of their variables, wherever there
        are some; "ignore" does not; None is for checkpoints without.

    Raises:
      MovingAveragesError: there are moving averages, and nobody has said what to do with
        them; or there are none to use.
      CheckpointLayoutError: the network is not there, or in several places; or with all
        problems at once: missing and unexpected variables, wrong shapes, wrong dtypes.
    """
    found = _sort(specs)
    prefix = _only_prefix(found.own or found.averages, source)
    averages = _merge(found.averages, source)
    stored = found.own.get(prefix, {})
    if _are_used(averages, moving_averages, source):
        stored = stored | averages
    network = {name: specs[place] for name, place in stored.items()}

    expected = variable_shapes().keys()
    head = {name for name in expected if name.startswith(_AUXILIARY_HEAD)}
    classifier = {name for name in expected if name.startswith(_CLASSIFIER)}
    needed = expected - head
    if not classifier & network.keys():
        needed -= classifier
    scopes = tuple(f"{prefix}{scope}/" for scope in _scopes())
    unexpected = [n for n in found.others if n.startswith(scopes) or not network]
    _raise(
        f"{source} is not a checkpoint of inception_resnet_v2. Found {len(specs)} "
        f"variables, expected the {len(expected)} that TF-Slim's definition has:",
        {"missing": [], "unexpected": unexpected} | _problems(network, needed),
    )
    misfits = _problems(network, head)
    used = needed if any(misfits.values()) else expected & network.keys()

    counters = [n for n in (f"{prefix}{_STEP}", _STEP) if specs.get(n) in _STEP_SPECS]
    step = counters[0] if counters else None
    ignored = [name for name in found.others if name != step]
    notes = []
    if prefix:
        notes.append(f"The network is under the prefix {prefix}")
    if averages:
        verb = "take" if moving_averages == "use" else "do not take"
        notes.append(
            f"Moving averages {verb} the places of {len(averages.keys() & used)} of "
            f"{len(used)} variables."
        )
    if classifier and not classifier & used:
        notes.append("There is no classifier, so all it gives is features.")
    if head & network.keys() - used:
        kind, (first, *_) = next(item for item in misfits.items() if item[1])
        notes.append(
            f"The auxiliary head does not fit and is not used; {kind}: {first}."
        )
    if found.slots:
        notes.append(
            f"{found.slots.total():,} variables of optimizers are not used "
            f"({_some(found.slots)})."
        )
    if ignored:
        notes.append(
            f"{len(ignored):,} variables outside of the network are not used "
            f"({_some(ignored)})."
        )
    return Layout(
        stored_names={name: stored[name] for name in used},
        prefix=prefix,
        step=step,
        moving_averages=moving_averages if averages else None,
        slots=found.slots.total(),
        ignored=len(ignored),
        notes=tuple(notes),
    )


def any_network(specs: Mapping[str, Spec]) -> Layout:
    """Returns the layout of a network that these rules are not for: everything is used.

    Variables whose values cannot be read are left out, and counted as ignored.
    """
    names = {name: name for name, spec in specs.items() if spec.is_readable}
    ignored = len(specs) - len(names)
    return Layout(names, "", None, None, 0, ignored, ())


def check(variables: Mapping[str, np.ndarray], source: str) -> None:
    """Checks a checkpoint's variables: names, shapes, dtypes and values.

    Args:
      variables: variable name -> array.
      source: what to call the checkpoint in the error, usually its path.

    Raises:
      CheckpointLayoutError: as `recognize` and `check_values` do.
    """
    specs = {name: Spec(str(v.dtype), v.shape) for name, v in variables.items()}
    found = recognize(specs, source, "ignore").stored_names
    check_values({name: variables[place] for name, place in found.items()}, source)


def check_values(variables: Mapping[str, np.ndarray], source: str) -> None:
    """Checks the values of a network's variables.

    Args:
      variables: name in the definition -> array.
      source: what to call the checkpoint in the error, usually its path.

    Raises:
      CheckpointLayoutError: with all problems at once: values that are not finite or,
        for moving variances, negative.
    """
    problems: dict[str, list[str]] = {"not finite": [], "negative": []}
    for name, value in variables.items():
        bad = value.size - np.count_nonzero(np.isfinite(value))
        if bad:
            problems["not finite"].append(f"{name}: {bad} of {value.size} values")
        elif name.endswith("/moving_variance") and (value < 0).any():
            problems["negative"].append(f"{name}: minimum {value.min()}")
    _raise(f"{source} holds values that no network can work with:", problems)


@dataclasses.dataclass(frozen=True)
class _Sorted:
    """A checkpoint's variables, by the part that they play.

    Attributes:
      own: prefix -> name in the definition -> name in the checkpoint.
      averages: the same, of moving averages.
      slots: what they are called -> how many there are.
      others: names.
    """

    own: dict[str, dict[str, str]]
    averages: dict[str, dict[str, str]]
    slots: collections.Counter[str]
    others: list[str]


def _sort(names: Iterable[str]) -> _Sorted:
    found = _Sorted({}, {}, collections.Counter(), [])
    scopes = _scopes()
    for name in names:
        match _split(name, scopes):
            case None:
                found.others.append(name)
            case prefix, variable, "":
                found.own.setdefault(prefix, {})[variable] = name
            case prefix, variable, rest if rest == _MOVING_AVERAGE:
                found.averages.setdefault(prefix, {})[variable] = name
            case _, _, rest if rest.startswith(f"{_MOVING_AVERAGE}_"):
                found.others.append(name)
            case _, _, slot:
                found.slots[slot] += 1
    return found


def _scopes() -> set[str]:
    """The scope of the network: what the names of its definition begin with."""
    return {name.partition("/")[0] for name in variable_shapes()}


def _split(name: str, scopes: set[str]) -> tuple[str, str, str] | None:
    """A name's prefix, the variable of the network, and what is below that."""
    parts = name.split("/")
    for start, part in enumerate(parts):
        if part not in scopes:
            continue
        for end in range(start + 1, min(len(parts), start + _DEPTH) + 1):
            variable = "/".join(parts[start:end])
            if variable in variable_shapes():
                prefix = "".join(f"{part}/" for part in parts[:start])
                return prefix, variable, "/".join(parts[end:])
    return None


def _only_prefix(found: Mapping[str, Mapping[str, str]], source: str) -> str:
    if len(found) > 1:
        counts = [
            f"{len(variables)} under {prefix or 'no prefix'}"
            for prefix, variables in sorted(found.items())
        ]
        raise CheckpointLayoutError(
            f"{source} holds variables of inception_resnet_v2 in {len(found)} places: "
            f"{', '.join(counts[:_MAX_LINES])}. Expected all {len(variable_shapes())} in "
            "one: which of several is meant cannot be known, and parts of a network, as "
            "object detectors have them, are not the whole."
        )
    return next(iter(found), "")


def _are_used(averages: Mapping[str, str], choice: str | None, source: str) -> bool:
    """Whether moving averages take the places of their variables, as somebody chose."""
    if averages and choice is None:
        raise MovingAveragesError(
            f"{source} holds moving averages of {len(averages)} variables of the network "
            "beside the variables, and so two networks. Say whether to use the moving "
            "averages, as evaluation mostly does, or to ignore them: "
            "--moving-averages use, or ignore."
        )
    if choice == "use" and not averages:
        raise MovingAveragesError(f"{source} holds no moving averages to use.")
    return choice == "use"


def _merge(averages: Mapping[str, Mapping[str, str]], source: str) -> dict[str, str]:
    """The moving averages of all prefixes, of which a variable may have one."""
    merged: dict[str, str] = {}
    for found in averages.values():
        if twice := merged.keys() & found.keys():
            name = min(twice)
            raise CheckpointLayoutError(
                f"{source} holds two moving averages of {len(twice)} variables, such as "
                f"{merged[name]} and {found[name]}. Expected one."
            )
        merged |= found
    return merged


def _classes(variables: Variables, scope: str) -> int | None:
    biases = variables.get(f"{scope}Logits/biases")
    return biases.shape[0] if biases is not None and len(biases.shape) == 1 else None


def _problems(
    network: Mapping[str, Spec], names: Iterable[str]
) -> dict[str, list[str]]:
    """What is wrong with those variables of a network, by the kind of trouble."""
    classes = _classes(network, _CLASSIFIER) or _classes(network, _AUXILIARY_HEAD)
    problems: dict[str, list[str]] = {
        "missing": [],
        "of the wrong shape": [],
        "of the wrong dtype": [],
    }
    for name in names:
        if name not in network:
            problems["missing"].append(name)
            continue
        shape = variable_shapes()[name]
        if classes and name.startswith(_OF_EACH_CLASS):
            shape = (*shape[:-1], classes)
        if network[name].shape != shape:
            problems["of the wrong shape"].append(
                f"{name}: {list(network[name].shape)}, expected {list(shape)}"
            )
        if network[name].dtype != "float32":
            problems["of the wrong dtype"].append(
                f"{name}: {network[name].dtype}, expected float32"
            )
    return problems


def _some(names: Iterable[str]) -> str:
    """Some names of many, for a sentence."""
    first = sorted(names)
    return ", ".join(first[:3]) + (", ..." if len(first) > 3 else "")


def _raise(headline: str, problems: Mapping[str, list[str]]) -> None:
    """Raises an error with a few lines for each kind of problem, if there are any."""
    message = [headline]
    for kind, lines in problems.items():
        if lines:
            message.append(f"  {len(lines)} {kind}:")
            message += [f"    {line}" for line in sorted(lines)[:_MAX_LINES]]
        if len(lines) > _MAX_LINES:
            message.append(f"    and {len(lines) - _MAX_LINES} more")
    if len(message) > 1:
        raise CheckpointLayoutError("\n".join(message))
