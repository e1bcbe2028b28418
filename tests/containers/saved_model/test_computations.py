"""Functions that compute the same, and those that only nearly do."""

import shutil

import numpy as np
import pytest

from exporters import images
from exporters.containers.saved_model import computations
from exporters.containers.saved_model import container as saved_model

pytestmark = pytest.mark.slow

SMALL = images.generate(2, 96, 96, seed=3)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture
def computation(tf, tmp_path):
    """Returns what a function of (x, a, b) computes, once saved and loaded."""

    def make(function):
        model = tf.train.Checkpoint(a=tf.Variable(2.0), b=tf.Variable(3.0))
        given = [tf.TensorSpec([None], name="x")]
        model.call = tf.function(
            lambda x: function(x, model.a, model.b), given, autograph=False
        )
        tf.saved_model.save(model, str(tmp_path / "model"))
        loaded = tf.saved_model.load(str(tmp_path / "model"))
        (concrete,) = loaded.call.concrete_functions
        return computations.of(concrete, {"a": loaded.a, "b": loaded.b})

    return make


def test_names_and_nesting_do_not_matter(tf, computation):
    one = computation(lambda x, a, b: tf.nn.relu(x * a) + b)

    def named(x, a, b):
        inner = tf.function(lambda y: tf.nn.relu(tf.identity(y * a, name="mine")))
        with tf.name_scope("deeper"):
            return tf.identity(inner(x)) + b

    assert computation(named) == one


@pytest.mark.parametrize(
    "other",
    [
        lambda tf, x, a, b: tf.nn.relu(x * b) + a,
        lambda tf, x, a, b: tf.nn.relu(x * a) + 3.0,
        lambda tf, x, a, b: tf.nn.relu6(x * a) + b,
        lambda tf, x, a, b: b + tf.nn.relu(x * a),
        lambda tf, x, a, b: tf.nn.relu(a * a) + b,
        lambda tf, x, a, b: tf.nn.relu(tf.transpose(x) * a) + b,
    ],
)
def test_other_variables_constants_and_ops(tf, computation, other):
    one = computation(lambda x, a, b: tf.nn.relu(x * a) + b)
    assert computation(lambda *given: other(tf, *given)).outputs != one.outputs


def test_attributes_matter(tf, computation):
    def leaky(alpha):
        return computation(lambda x, a, b: tf.nn.leaky_relu(x, alpha)).outputs

    assert leaky(0.1) == leaky(0.1) != leaky(0.2)


def moved(by):
    def function(x, a, b):
        result = x * b
        a.assign_sub(by)
        return result

    return function


def test_what_moves_variables_is_an_effect(computation):
    one, same = computation(moved(0.5)), computation(moved(0.5))
    assert same.has_effects_of(one)
    for other in (moved(0.25), lambda x, a, b: x * b):
        found = computation(other)
        assert found.outputs == one.outputs
        assert not found.has_effects_of(one)


def test_an_effect_twice_is_another(computation):
    def twice(x, a, b):
        return moved(0.5)(x, a, b) + 0 * moved(0.5)(x, a, b)

    assert not computation(twice).has_effects_of(computation(moved(0.5)))


# Models


@pytest.fixture(scope="module")
def v5(thin_exported):
    return thin_exported / "inception_resnet_v2-classification-v5-stand-in"


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize("version", ["v4", "v5"])
def test_our_models_run_each_computation_once(thin_exported, tf, version):
    """Four traces and a signature are two computations: evaluation and training."""
    path = thin_exported / f"inception_resnet_v2-classification-{version}-stand-in"
    model = tf.saved_model.load(str(path))
    found = saved_model._repetitions(
        model,
        model.signatures.get("serving_default"),
        {v.name.removesuffix(":0"): v for v in model.variables},
    )
    assert found == saved_model._Repetitions(True, True, version == "v5")


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    "is_changed, differing",
    [
        (lambda given: not given, ["serving_default/logits"]),
        (lambda given: given == [False, False], ["logits"]),
        (lambda given: given == [True, False], []),
    ],
)
def test_a_function_that_differs_is_run(v5, tmp_path, is_changed, differing):
    """One function alone gets another network, and its output alone shows it."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    changed = tmp_path / "changed"
    shutil.copytree(v5, changed)
    content = SavedModel.FromString((v5 / "saved_model.pb").read_bytes())
    (meta_graph,) = content.meta_graphs
    functions = {f.signature.name: f for f in meta_graph.graph_def.library.function}
    traces = meta_graph.object_graph_def.concrete_functions
    (caller,) = [
        name
        for name, function in functions.items()
        if calls_the_network(function, functions)
        and is_changed(flags(traces[name]) if name in traces else [])
    ]
    (call,) = calls(functions[caller])
    other = meta_graph.graph_def.library.function.add()
    other.CopyFrom(functions[call.attr["f"].func.name])
    other.signature.name = call.attr["f"].func.name = "__inference_other_1"
    next(n for n in other.node_def if n.op == "FusedBatchNormV3").attr["epsilon"].f = 1
    (changed / "saved_model.pb").write_bytes(content.SerializeToString())

    with saved_model.open(v5) as original, saved_model.open(changed) as opened:
        expected, found = original.run(SMALL), opened.run(SMALL)
        # Which `run` does not run, in training.
        assert bool(opened.check()) is not bool(differing)
    assert differing == [
        name for name in expected if not np.array_equal(expected[name], found[name])
    ]


@pytest.mark.usefixtures("thin")
def test_what_cannot_be_told_is_run(v5, monkeypatch):
    def fail(function, variables):
        raise ValueError("a cycle")

    with saved_model.open(v5) as opened:
        expected = opened.run(SMALL)
        monkeypatch.setattr(computations, "of", fail)
    with saved_model.open(v5) as opened:
        found = opened.run(SMALL)
        assert opened.check() == []
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def calls(function):
    return [node for node in function.node_def if "PartitionedCall" in node.op]


def calls_the_network(function, functions):
    called = [functions[call.attr["f"].func.name] for call in calls(function)]
    return any(
        node.op == "FusedBatchNormV3" for inner in called for node in inner.node_def
    )


def flags(trace):
    """Values of `training` and `return_endpoints` of a trace of `__call__`."""
    (arguments, _) = trace.canonicalized_input_signature.tuple_value.values
    return [
        value.bool_value
        for value in arguments.tuple_value.values
        if value.HasField("bool_value")
    ]
