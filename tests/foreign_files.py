"""Files that other tools make of one network: `narrow_network`, in everybody's hands.

Each function is one tool's. All files are of the same weights, unless their names say
otherwise.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import subprocess
from pathlib import Path
from unittest import mock

import narrow_network
import numpy as np
import pytest
import small_networks
from consumers import environments

from checkpoints.reader import Checkpoint
from exporters import images
from exporters.network.folding import Weights
from exporters.network.layers import Conv, Dense

SIZE = (75, 75)
CLASSES = narrow_network.CLASSES
_CALIBRATION = 8
"""Number of images for integers."""


@functools.cache
def checkpoint() -> Checkpoint:
    """The weights that all files are of.

    Moving averages are those of some images, so that outputs tell images apart; and
    of those that files are compared on, so that integers have room for what these give.
    """
    import tensorflow as tf

    made = dict(narrow_network.CHECKPOINT)
    whole = narrow_network.network()
    values = {whole.input: tf.constant(2 * _images() - 1)}
    for layer in whole.layers:
        if isinstance(layer, Conv | Dense):
            kernel = made[f"{layer.scope}/weights"]
            if isinstance(layer, Conv) and layer.normalized:
                linear = dataclasses.replace(layer, relu=False)
                given = {layer.scope: Weights(kernel, np.zeros(1, np.float32))}
                found = small_networks.run_layer(linear, values, given)
                norm = f"{layer.scope}/BatchNorm"
                for name, value in zip(
                    ("moving_mean", "moving_variance"), tf.nn.moments(found, [0, 1, 2])
                ):
                    made[f"{norm}/{name}"] = value.numpy()
                gain = 1 / np.sqrt(made[f"{norm}/moving_variance"] + 1e-3)
                bias = made[f"{norm}/beta"] - gain * made[f"{norm}/moving_mean"]
            else:
                gain = getattr(layer, "scale", 1.0)
                bias = gain * made[f"{layer.scope}/biases"]
            values[layer.name] = small_networks.run_layer(
                layer, values, {layer.scope: Weights(kernel * gain, bias)}
            )
        else:
            values[layer.name] = small_networks.run_layer(layer, values, {})
    return narrow_network.of(made)


def _images() -> np.ndarray:
    """Images, of which the first are those that `test_foreign` compares on."""
    batches = (
        images.generate(count, *SIZE, seed=seed) for count, seed in ((2, 1), (22, 5))
    )
    return np.concatenate(list(batches))


def make(directory: Path) -> None:
    """Makes the files of the tools that are here."""
    with narrow_network.installed():
        model = _keras(directory)
        _tensorflow(directory, model)
        _tf2onnx(directory)
        _onnxruntime(directory)


def make_elsewhere(directory: Path, made: Path) -> None:
    """Makes the files of tools that have environments of their own.

    Skips the test where the machine has not the interpreter.

    Args:
      directory: to write to.
      made: what `make` wrote.
    """
    with narrow_network.installed():
        state = narrow_network.write(directory, "timm", of=checkpoint())
    _run("timm_maker", "keras3.15-torch2.13-py3.11", state, directory)
    source = made / "tf2onnx.onnx"
    _run("openvino_maker", "openvino2026.4-py3.11", source, directory)


def _run(program: str, environment: str, *arguments: Path) -> None:
    try:
        python = environments.python_of(environment)
    except environments.NoInterpreterError as error:
        pytest.skip(f"{environment} {error}")
    command = [python, environments.DIRECTORY / f"{program}.py", *arguments]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert not done.returncode, done.stdout[-3000:]


def _keras(directory: Path):
    """Keras, saving what it loaded and its own network, which it calls applications."""
    import keras

    model = keras.models.load_model(
        narrow_network.write(directory, "keras", of=checkpoint()), compile=False
    )
    model.save(directory / "again.keras")
    model.save(directory / "older.h5")
    model.save_weights(directory / "it.weights.h5")
    own = keras.layers.Dense(3)(model.layers[-2].output)
    keras.Model(model.input, own).save_weights(directory / "own.weights.h5")

    cut = {
        name: values[..., 1:] if "/Logits/" in name else values
        for name, values in checkpoint().items()
    }
    cut = narrow_network.of(cut, CLASSES - 1)
    with narrow_applications():
        theirs = keras.applications.InceptionResNetV2(
            weights=str(narrow_network.write(directory, "keras-weights", of=cut)),
            classes=CLASSES - 1,
            input_shape=(*SIZE, 3),
        )
    theirs.save(directory / "applications.keras")
    theirs.save(directory / "applications.h5")
    theirs.save_weights(directory / "applications.weights.h5")
    return model


def narrow_applications():
    """`keras.applications`, whose network has a quarter of its channels."""
    module = importlib.import_module("keras.src.applications.inception_resnet_v2")
    original = module.conv2d_bn

    def conv2d_bn(x, filters, *arguments, use_bias=False, **options):
        # Those with biases have as many channels as the block.
        filters //= 1 if use_bias else narrow_network.NARROWER
        return original(x, filters, *arguments, use_bias=use_bias, **options)

    return mock.patch.object(module, "conv2d_bn", conv2d_bn)


def _tensorflow(directory: Path, model) -> None:
    """TensorFlow: frozen graphs, SavedModels of both versions, and its converter."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    spec = tf.TensorSpec((1, *SIZE, 3), tf.float32)
    function = tf.function(lambda images: model(images, training=False), [spec])
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        function.get_concrete_function()
    )
    graph = frozen.graph.as_graph_def()
    (directory / "frozen.pb").write_bytes(graph.SerializeToString())

    module = tf.Module()
    module.model = model  # So that its variables are saved.
    module.embed = tf.function(
        lambda pixels: {"scores": tf.nn.softmax(model(pixels / 255, training=False))},
        [tf.TensorSpec((None, None, None, 3), tf.float32)],
    )
    signatures = {"serving_default": module.embed}
    tf.saved_model.save(module, str(directory / "module"), signatures=signatures)

    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        pixels = v1.placeholder(tf.float32, (1, *SIZE, 3))
        (source,) = (t.name for t in frozen.inputs)
        (output,) = v1.import_graph_def(
            graph, {source: pixels}, [frozen.outputs[0].name], name="net"
        )
        v1.saved_model.simple_save(
            session, str(directory / "tf1"), {"pixels": pixels}, {"logits": output}
        )

    batch = _images()[:_CALIBRATION]
    smaller = [tf.lite.Optimize.DEFAULT]
    half = tf.lite.TargetSpec(supported_types=[tf.float16])
    integers = tf.lite.TargetSpec([tf.lite.OpsSet.TFLITE_BUILTINS_INT8])
    for name, settings in {
        "float32": {},
        "float16": {"optimizations": smaller, "target_spec": half},
        "dynamic": {"optimizations": smaller},
        "int8": {
            "optimizations": smaller,
            "representative_dataset": lambda: ([image[None]] for image in batch),
            "target_spec": integers,
            "inference_input_type": tf.uint8,
            "inference_output_type": tf.uint8,
        },
    }.items():
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        for setting, value in settings.items():
            setattr(converter, setting, value)
        (directory / f"{name}.tflite").write_bytes(converter.convert())


def _tf2onnx(directory: Path) -> None:
    """tf2onnx, given the frozen graph."""
    import tf2onnx
    from tensorflow.core.framework.graph_pb2 import GraphDef

    graph = GraphDef.FromString((directory / "frozen.pb").read_bytes())
    (source,) = (node.name for node in graph.node if node.op == "Placeholder")
    read = {name.partition(":")[0] for node in graph.node for name in node.input}
    (output,) = (
        node.name
        for node in graph.node
        if node.name not in read and node.op not in ("NoOp", "Const")
    )
    tf2onnx.convert.from_graph_def(
        graph,
        input_names=[f"{source}:0"],
        output_names=[f"{output}:0"],
        output_path=str(directory / "tf2onnx.onnx"),
    )


def _onnxruntime(directory: Path) -> None:
    """ONNX Runtime's tools, given what tf2onnx made."""
    import onnx
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.transformers.float16 import convert_float_to_float16

    source = str(directory / "tf2onnx.onnx")
    model = onnx.load(source)
    onnx.save(
        model,
        directory / "external.onnx",
        save_as_external_data=True,
        location="external.bin",
    )
    onnx.save(convert_float_to_float16(onnx.load(source)), directory / "half.onnx")
    quantization.quantize_dynamic(
        source,
        str(directory / "dynamic.onnx"),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
    )

    class Images(quantization.CalibrationDataReader):
        def __init__(self):
            (name,) = (each.name for each in model.graph.input)
            batch = _images()[:_CALIBRATION]
            self._rest = iter([{name: image[None]} for image in batch])

        def get_next(self):
            return next(self._rest, None)

    quantization.quantize_static(
        source, str(directory / "static.onnx"), Images(), per_channel=True
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(directory / "optimized.onnx")
    level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.graph_optimization_level = level
    onnxruntime.InferenceSession(source, options)
