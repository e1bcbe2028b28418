"""The TF2 SavedModel format: v4 for hub.KerasLayer, and v5 with a serving signature.

Source of the interface: TF Hub's "Reusable SavedModels" and the documentation published
with the model.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from checkpoints.scratch import Scratch, temporary
from exporters import extra_assets
from exporters.artifact import (
    MOMENTUM,
    MOVED,
    TRAINED,
    OpenedArtifact,
    Output,
    StoredWeight,
    moving_averages,
    reading,
)
from exporters.build import Build
from exporters.containers.saved_model import (
    older_tensorflow,
    reproducible,
    saver_ops,
)
from exporters.errors import ArtifactError, ForeignFileError
from exporters.images import generate
from exporters.network import computations, tensorflow_internals, weight_decay
from exporters.network import inception_resnet_v2 as network
from exporters.network.computations import CannotTell, Computation
from exporters.network.graphs import HUB_MOMENTUM, NetworkGraph
from exporters.network.tasks import CLASSIFICATION, FEATURE_VECTOR, Task
from exporters.record import Record

if TYPE_CHECKING:
    import tensorflow as tf
    from tensorflow.core.framework.function_pb2 import FunctionDef
    from tensorflow.core.framework.node_def_pb2 import NodeDef
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
    from tensorflow.core.protobuf.saved_object_graph_pb2 import SavedObjectGraph
    from tensorflow.types.experimental import ConcreteFunction

_SERVING = "serving_default"
_POOLED = "InceptionResnetV2/global_pool"
_BESIDE_ENDPOINTS = "endpoints/default"
"""The task's output as it is returned with the endpoints."""
_INTERFACE = ("__call__", "trainable_variables", "regularization_losses")
_SMALL = (96, 96)
"""Height and width of images on which two runs of the same trace are compared."""
_MOVED_TOLERANCE = 1e-5
"""Relative and absolute, of averages that move by 1 %."""
_SAVED = "saved_model"
"""Directory in a temporary one, which only its owner may read."""


def write(
    build: Build, has_signature: bool, task: Task, record: Record, path: Path
) -> None:
    """Writes a SavedModel of the network.

    Its `__call__(inputs, training=False, return_endpoints=False,
    batch_norm_momentum=0.99)` takes float32 [batch, height, width, 3] in [0, 1] and
    returns the feature vector [batch, 1536] or the logits [batch, 1001], or a dict of
    these (key "default") and the endpoints. With training=True it normalizes by batch
    statistics and updates the moving averages.

    Args:
      build: checkpoint and graphs.
      has_signature: whether there is the signature `serving_default`.
      task: what for.
      record: what the SavedModel says about itself.
      path: directory to write.
    """
    saved = build.once(_save_with_signature, task)
    shutil.copytree(saved.path / _SAVED, path)
    if not has_signature:
        _remove_signature(path)
    extra_assets.write_record(path, record)


def _save_with_signature(build: Build, task: Task) -> Scratch:
    """Saves the model as v5; v4 is the same less the signature."""
    import tensorflow as tf

    model, serving_default = _build_model(build, task)
    directory = temporary()
    saved = directory.path / _SAVED
    with _temporary_files_in(directory.path):
        tf.saved_model.save(
            model,
            str(saved),
            signatures={"serving_default": serving_default},
            options=tf.saved_model.SaveOptions(experimental_skip_saver=True),
        )
    # It has a random number, and the published artifacts do not have it.
    (saved / "fingerprint.pb").unlink(missing_ok=True)
    with _rewritten(saved) as saved_model:
        for meta_graph in saved_model.meta_graphs:
            saver_ops.add(meta_graph)
            older_tensorflow.make_readable(meta_graph)
            reproducible.make_reproducible(meta_graph)
    return directory


@contextlib.contextmanager
def _temporary_files_in(directory: Path) -> Iterator[None]:
    """Has Python's temporary files made in a directory.

    TensorFlow's autograph writes a function of the signature's into one, which would stay
    if the process was killed.
    """
    before = tempfile.tempdir
    tempfile.tempdir = str(directory)
    try:
        yield
    finally:
        tempfile.tempdir = before


@contextlib.contextmanager
def _rewritten(directory: Path) -> Iterator[SavedModel]:
    """Gives the SavedModel message of a directory to change, then writes it back."""
    from tensorflow.core.protobuf import saved_model_pb2

    file = directory / "saved_model.pb"
    saved_model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    yield saved_model
    file.write_bytes(saved_model.SerializeToString(deterministic=True))


def _remove_signature(path: Path) -> None:
    """Takes the signature out of a SavedModel, and the functions it alone calls."""
    with _rewritten(path) as saved_model:
        for meta_graph in saved_model.meta_graphs:
            signature = meta_graph.signature_def.pop("serving_default")
            names = [
                tensor.name.partition(":")[0]
                for tensors in (signature.inputs, signature.outputs)
                for tensor in tensors.values()
            ]
            graph = meta_graph.graph_def
            kept = [node for node in graph.node if node.name not in names]
            del graph.node[:]
            graph.node.extend(kept)
            _remove_signature_function(meta_graph.object_graph_def)
            functions = _called_functions(meta_graph)
            del graph.library.function[:]
            graph.library.function.extend(functions)


def _remove_signature_function(objects: SavedObjectGraph) -> None:
    """Takes an object out of an object graph; the others are numbered anew."""
    signature = tensorflow_internals.signature_node(objects)
    function = objects.nodes[signature].bare_concrete_function
    del objects.concrete_functions[function.concrete_function_name]
    del objects.nodes[signature]
    for node in objects.nodes:
        for references in (node.children, node.dependencies):
            kept = [r for r in references if r.node_id != signature]
            for reference in kept:
                reference.node_id -= reference.node_id > signature
            del references[:]
            references.extend(kept)


def _called_functions(meta_graph: MetaGraphDef) -> list[FunctionDef]:
    """Returns the functions that the object graph has or that the graph's nodes call."""
    library = meta_graph.graph_def.library.function
    by_name = {function.signature.name: function for function in library}
    called = set()
    waiting = [*meta_graph.object_graph_def.concrete_functions]
    waiting += _calls(meta_graph.graph_def.node)
    while waiting:
        name = waiting.pop()
        if name not in called:
            called.add(name)
            waiting += _calls(by_name[name].node_def)
    return [function for function in library if function.signature.name in called]


def _calls(nodes: Iterable[NodeDef]) -> list[str]:
    attributes = [value for node in nodes for value in node.attr.values()]
    return [value.func.name for value in attributes if value.HasField("func")]


def open(path: Path) -> OpenedArtifact:
    """Opens a SavedModel as hub.load does.

    The callable returns the task's output and the endpoints, the same output from the
    signature (v5) under "serving_default/", and under "train/" the feature vector that
    batch statistics give, and the moving averages after such a step. Of functions that
    compute the same, by their ops, it runs one.

    Raises:
      ArtifactError: the directory is no SavedModel, or none of this network.
    """
    import tensorflow as tf

    with _reading(path):
        model = tf.saved_model.load(str(path))
    variables = {v.name.removesuffix(":0"): v for v in getattr(model, "variables", [])}
    record = extra_assets.read_record(path)
    if "InceptionResnetV2/Conv2d_1a_3x3/weights" not in variables or not (
        record or all(hasattr(model, attribute) for attribute in _INTERFACE)
    ):
        raise ForeignFileError(
            f"{path} is a SavedModel, but not as v4 and v5 are: expected a variable "
            f"InceptionResnetV2/Conv2d_1a_3x3/weights among its {len(variables)}, and "
            "what TF Hub asks of an object that can be called."
        )
    has_classifier = "InceptionResnetV2/Logits/Logits/weights" in variables
    task = CLASSIFICATION if has_classifier else FEATURE_VECTOR
    serving = model.signatures.get(_SERVING)
    format_name = "v5" if serving else "v4"
    if record and (record.format, record.task) != (format_name, task.name):
        raise ArtifactError(
            f"{path} is recorded as {record.format} of {record.task}, but it is "
            f"{format_name} of {task.name}. Export it again."
        )
    averages = {name: v for name, v in variables.items() if "/moving_" in name}
    expected = {"default", *task.published}

    @functools.cache
    def told() -> _Told | None:
        with contextlib.suppress(CannotTell), computations.telling():
            return _Told(model, serving, variables)
        return None

    @_without_optimizing()
    @_reading(path)
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        batch = tf.constant(images)
        outputs = dict(model(batch, return_endpoints=True))
        if outputs.keys() != expected:
            raise ArtifactError(
                f"{path} has the outputs {sorted(outputs)}, expected {sorted(expected)}."
            )
        functions = told()
        default = outputs.pop("default")
        is_repeated = functions and functions.is_plain_repeated
        results = {
            task.output: default if is_repeated else model(batch),
            _BESIDE_ENDPOINTS: default,
            **outputs,
        }
        if serving:
            is_repeated = functions and functions.is_serving_repeated
            names = serving.structured_outputs
            served = dict.fromkeys(names, default) if is_repeated else serving(batch)
            results |= {f"{_SERVING}/{name}": value for name, value in served.items()}
        return {name: value.numpy() for name, value in results.items()}

    @_without_optimizing()
    @_reading(path)
    def train(images: np.ndarray) -> dict[str, np.ndarray]:
        moved, outputs = step(
            tf.constant(images), return_endpoints=True, batch_norm_momentum=MOMENTUM
        )
        pooled = tf.squeeze(outputs[_POOLED], [1, 2])
        return {TRAINED: pooled.numpy(), MOVED: moved}

    def step(batch: tf.Tensor, **arguments: Any) -> tuple[np.ndarray, Any]:
        """Returns the moving averages after a step of training, and its outputs."""
        before = {name: variable.numpy() for name, variable in averages.items()}
        outputs = model(batch, training=True, **arguments)
        moved = moving_averages({name: v.numpy() for name, v in averages.items()})
        for name, variable in averages.items():
            variable.assign(before[name])
        return moved, outputs

    @_reading(path)
    def computed() -> dict[str, bytes]:
        with contextlib.suppress(CannotTell), computations.telling():
            if functions := told():
                return functions.computations(task)
        return {}

    @_without_optimizing()
    @_reading(path)
    def check() -> list[str]:
        batch = tf.constant(generate(2, *_SMALL))
        # The trace that `train` does not run, unless it is the same.
        functions = told()
        is_repeated = bool(functions and functions.is_training_repeated)
        by_default, _ = step(batch, return_endpoints=is_repeated)
        given, _ = step(batch, return_endpoints=True, batch_norm_momentum=HUB_MOMENTUM)
        found = []
        if not np.allclose(by_default, given, _MOVED_TOLERANCE, _MOVED_TOLERANCE):
            found.append(
                "moving averages after a step of training by default: not those by the "
                f"momentum {HUB_MOMENTUM}"
            )
        trainable = {v.name.removesuffix(":0") for v in model.trainable_variables}
        if trainable != variables.keys() - averages.keys():
            found.append("trainable variables: not all but the moving averages")
        # In one function, as training has them: hundreds of calls would be traced alone.
        together = tf.function(
            lambda: [loss() for loss in model.regularization_losses], autograph=False
        )
        losses = [loss.numpy() for loss in together()]
        values = {name: variable.numpy() for name, variable in variables.items()}
        return found + weight_decay.problems(losses, values)

    @_reading(path)
    def main_only(images: np.ndarray) -> dict[str, np.ndarray]:
        return {task.output: model(tf.constant(images)).numpy()}

    return OpenedArtifact(
        format=format_name,
        task=task,
        record=record,
        image_size=None,
        outputs={
            task.output: Output(task.output),
            TRAINED: Output("feature_vector", is_training=True),
            MOVED: Output("moving_averages", is_training=True),
            _BESIDE_ENDPOINTS: Output(task.output),
            **{name: Output(value) for name, value in task.published.items()},
            **({f"{_SERVING}/{task.output}": Output(task.output)} if serving else {}),
        },
        run=run,
        train=train,
        main_only=main_only,
        computations=computed,
        weights=lambda: {
            name: StoredWeight(variable.numpy()) for name, variable in variables.items()
        },
        check=check,
    )


class _Told:
    """What the functions of a model compute.

    Attributes:
      is_plain_repeated: whether the call without endpoints computes what the call with
        endpoints has as "default".
      is_training_repeated: likewise in training, with the same effects.
      is_serving_repeated: likewise the signature.
    """

    def __init__(
        self, model: Any, serving: Any, variables: Mapping[str, tf.Variable]
    ) -> None:
        """Looks at all functions.

        Raises:
          CannotTell: they are not as they are in v4 and v5.
        """
        contents = {
            name: computations.of_variable(name, variable.numpy())
            for name, variable in variables.items()
        }
        self._averages = [of for name, of in contents.items() if "/moving_" in name]
        handles = {id(v.handle): contents[name] for name, v in variables.items()}
        chance = os.urandom(16)
        by_flags = {}
        functions = getattr(model.__call__, "concrete_functions", ())
        for function in functions:
            by_flags[_flags(function)] = _named_outputs(
                function, computations.of(function, handles, chance)
            )
        # Of two traces for the same arguments, either might be called.
        if not len(by_flags) == len(functions) == 4:
            raise CannotTell("other traces than those of two flags")
        self._plain, self._evaluated = by_flags[False, False], by_flags[False, True]
        self._trained = by_flags[True, True]
        self._served = {}
        if serving:
            _check_signature(serving)
            served = computations.of(serving, handles, chance)
            self._served = _named_outputs(serving, served)

        def is_default(named: Mapping[str, bytes], of: Mapping[str, bytes]) -> bool:
            return set(named.values()) == {of["default"]}

        self.is_plain_repeated = is_default(self._plain, self._evaluated)
        self.is_training_repeated = is_default(by_flags[True, False], self._trained)
        self.is_serving_repeated = is_default(self._served, self._evaluated)

    def computations(self, task: Task) -> dict[str, bytes]:
        """Returns output name -> what stands for it, as `open` names them."""
        endpoints = dict(self._evaluated)
        trained = self._trained[_POOLED]
        return {
            task.output: self._plain["default"],
            _BESIDE_ENDPOINTS: endpoints.pop("default"),
            **endpoints,
            **{f"{_SERVING}/{name}": of for name, of in self._served.items()},
            TRAINED: computations.digest(TRAINED, trained),
            MOVED: computations.digest(MOVED, trained, *self._averages),
        }


def _is_any_size(images: tf.TensorSpec) -> bool:
    """Whether a function takes images of any size, as many as one likes."""
    spec = _images_spec()
    return images.shape.as_list() == spec.shape.as_list() and images.dtype == spec.dtype


def _check_signature(serving: ConcreteFunction) -> None:
    match serving.structured_input_signature:
        case ((), {"inputs": images, **others}) if not others and _is_any_size(images):
            return
    raise CannotTell("a signature with other arguments")


def _flags(function: ConcreteFunction) -> tuple[bool, bool]:
    """Returns whether a trace of `__call__` is of training, and has the endpoints."""
    import tensorflow as tf

    match function.structured_input_signature:
        case (
            (images, bool(training), bool(has_endpoints), tf.TensorSpec() as momentum),
            {},
        ) if _is_any_size(images) and momentum.shape.rank == 0:
            return training, has_endpoints
    raise CannotTell("a call with other arguments")


def _named_outputs(
    function: ConcreteFunction, computation: Computation
) -> dict[str, bytes]:
    """Returns output name -> what stands for it and for what is changed with it."""
    import tensorflow as tf

    outputs = function.structured_outputs
    names = sorted(outputs) if isinstance(outputs, Mapping) else ["default"]
    specs = outputs.values() if isinstance(outputs, Mapping) else [outputs]
    if len(names) != len(computation.outputs) or not all(
        isinstance(spec, tf.TensorSpec) for spec in specs
    ):
        raise CannotTell("outputs that are not tensors by name")
    return {name: computation.of_output(number) for number, name in enumerate(names)}


def _reading(path: Path) -> contextlib._GeneratorContextManager[None]:
    return reading(path, "a TF2 SavedModel", "TensorFlow")


@contextlib.contextmanager
def _without_optimizing() -> Iterator[None]:
    """Runs traces as they are: a few runs take less time than TensorFlow's optimizer."""
    import tensorflow as tf

    option = "disable_meta_optimizer"
    before = tf.config.optimizer.get_experimental_options().get(option, False)
    tf.config.optimizer.set_experimental_options({option: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({option: before})


def _images_spec() -> tf.TensorSpec:
    import tensorflow as tf

    return tf.TensorSpec([None, None, None, 3], tf.float32, name="inputs")


def _momentum_spec() -> tf.TensorSpec:
    import tensorflow as tf

    return tf.TensorSpec([], tf.float32, name="batch_norm_momentum")


def _build_model(
    build: Build, task: Task
) -> tuple[tf.train.Checkpoint, Callable[..., Any]]:
    """Builds the object that hub.KerasLayer expects, with its four traces.

    Each trace calls a function that has the network below `predict/`, and so does the
    signature. That is how the publisher's other SavedModels are made, and what shows
    in the names of ops once a consumer inlines these calls.

    Returns:
      The object and the function for its signature, a tf.train.Checkpoint and a
      tf.function.
    """
    import tensorflow as tf

    variables = {
        name: tf.Variable(
            build.checkpoint[name], trainable="/moving_" not in name, name=name
        )
        for name in build.graph().variable_names(task)
    }

    predictions = {
        (training, return_endpoints): _prediction(
            build.graph(is_training=training), task, return_endpoints, variables
        )
        for training in (False, True)
        for return_endpoints in (False, True)
    }

    def call(
        inputs: tf.Tensor,
        training: bool = False,
        return_endpoints: bool = False,
        batch_norm_momentum: float = HUB_MOMENTUM,
    ) -> Any:
        predict = predictions[training, return_endpoints]
        outputs = predict(inputs, batch_norm_momentum)
        return outputs if return_endpoints else outputs["default"]

    model = tf.train.Checkpoint()
    model.__call__ = tf.function(call, autograph=False)
    for training, return_endpoints in predictions:
        model.__call__.get_concrete_function(
            _images_spec(), training, return_endpoints, _momentum_spec()
        )
    model.variables = list(variables.values())
    model.trainable_variables = [v for v in variables.values() if v.trainable]
    model.regularization_losses = [
        _regularization_loss(variable)
        for name, variable in variables.items()
        if name.endswith(("/weights", "/biases"))
    ]

    def serving_default(inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = predictions[False, False](inputs, tf.constant(HUB_MOMENTUM))
        return {task.output: outputs["default"]}

    return model, tf.function(
        serving_default, input_signature=[_images_spec()], autograph=False
    )


def _prediction(
    graph: NetworkGraph,
    task: Task,
    return_endpoints: bool,
    variables: Mapping[str, tf.Variable],
) -> Callable[..., dict[str, tf.Tensor]]:
    """Traces the network as a function: images and momentum -> outputs by name."""
    import tensorflow as tf

    tensors = graph.outputs(task)
    if not return_endpoints:
        tensors = {"default": tensors["default"]}
    updates = [update.name for update in graph.updates]
    graph_def = graph.subgraph([t.op.name for t in tensors.values()] + updates)
    handles = [node.name for node in graph_def.node if node.op == "VarHandleOp"]
    images, momentum = graph.images.op, graph.batch_norm_momentum.op
    replaced = {images.name, momentum.name, momentum.inputs[0].op.name, *handles}
    body = _without(graph_def, replaced)

    def predict(
        inputs: tf.Tensor, batch_norm_momentum: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        input_map = {
            f"{name}:0": tensorflow_internals.capture(variables[name].handle)
            for name in handles
        }
        input_map[f"{images.name}:0"] = inputs
        if updates:
            input_map[f"{momentum.name}:0"] = batch_norm_momentum
        imported = tf.graph_util.import_graph_def(
            body,
            input_map,
            [tensor.name for tensor in tensors.values()],
            name="predict",
        )
        return dict(zip(tensors, imported))

    return tf.function(
        predict, input_signature=[_images_spec(), _momentum_spec()], autograph=False
    ).get_concrete_function()


def _without(
    graph_def: tf.compat.v1.GraphDef, names: Container[str]
) -> tf.compat.v1.GraphDef:
    """Leaves nodes out of a graph, and all colocation.

    Handles of variables would stay in a function even if nothing reads them, since they
    are stateful, and both XLA and TensorFlow's TFLite converter fail on them. What is
    colocated is so with these handles.
    """
    import tensorflow as tf

    result = tf.compat.v1.GraphDef(versions=graph_def.versions)
    for source in graph_def.node:
        if source.name not in names:
            node = result.node.add()
            node.CopyFrom(source)
            node.attr.pop("_class", None)
    return result


def _regularization_loss(variable: tf.Variable) -> Callable[[], tf.Tensor]:
    import tensorflow as tf

    def regularization_loss() -> tf.Tensor:
        return network.WEIGHT_DECAY * tf.nn.l2_loss(variable)

    return tf.function(regularization_loss, input_signature=[], autograph=False)
