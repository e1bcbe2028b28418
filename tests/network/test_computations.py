"""Functions that compute the same, and those that only nearly do."""

import dataclasses
import shutil

import numpy as np
import pytest

from exporters import images, parity
from exporters.containers.hub_module import container as hub_module
from exporters.containers.saved_model import container as saved_model
from exporters.errors import ArtifactError
from exporters.formats import FORMATS
from exporters.network import computations
from exporters.reference import Reference

pytestmark = pytest.mark.slow

SMALL = images.generate(2, 96, 96, seed=3)


@pytest.fixture(scope="module")
def tf():
    import tensorflow

    return tensorflow


@pytest.fixture
def computation(tf, tmp_path):
    """Returns what a function of (x, a, b) computes, once saved and loaded."""

    def make(function, chance=b""):
        model = tf.train.Checkpoint(a=tf.Variable(2.0), b=tf.Variable(3.0))
        given = [tf.TensorSpec([None], name="x")]
        model.call = tf.function(
            lambda x: function(x, model.a, model.b), given, autograph=False
        )
        tf.saved_model.save(model, str(tmp_path / "model"))
        loaded = tf.saved_model.load(str(tmp_path / "model"))
        (concrete,) = loaded.call.concrete_functions
        variables = {id(loaded.a.handle): b"a", id(loaded.b.handle): b"b"}
        return computations.of(concrete, variables, chance)

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
    assert same.effect == one.effect
    assert same.of_output(0) == one.of_output(0)
    for other in (moved(0.25), lambda x, a, b: x * b):
        found = computation(other)
        assert found.outputs == one.outputs
        assert found.effect != one.effect
        assert found.of_output(0) != one.of_output(0)


def test_an_effect_twice_is_another(computation):
    def twice(x, a, b):
        return moved(0.5)(x, a, b) + 0 * moved(0.5)(x, a, b)

    assert computation(twice).effect != computation(moved(0.5)).effect


def test_reading_and_chance_are_no_effects(tf, computation):
    def reading(x, a, b):
        x = x + 0 * b.read_value()
        return moved(0.5)(x, a, b) + 0 * tf.random.uniform([])

    assert computation(reading).effect == computation(moved(0.5)).effect


def test_random_numbers_are_others_in_another_model(tf, computation):
    def function(x, a, b):
        return x * tf.random.uniform([])

    one, same = computation(function, b"1"), computation(function, b"1")
    assert one == same
    assert computation(function, b"2").outputs != one.outputs


@pytest.mark.parametrize(
    "function",
    [
        lambda tf, x, a, b: tf.cond(a > 0, lambda: x * a, lambda: x * b),
        lambda tf, x, a, b: x + tf.cast(tf.timestamp(), tf.float32),
    ],
)
def test_what_depends_on_more_is_not_told(tf, computation, function):
    with pytest.raises(computations.CannotTell):
        computation(lambda *given: function(tf, *given))


def test_values_of_variables_count():
    ones, twos = np.ones(4, np.float32), np.full(4, 2, np.float32)
    of = computations.of_variable
    assert of("a", ones) == of("a", ones.copy())
    found = [of("a", ones), of("b", ones), of("a", twos), of("a", ones.reshape(2, 2))]
    assert len(set(found)) == 4


@pytest.fixture
def graph(tf):
    """Returns what a TF1 graph computes whose ops are made by a function of x."""

    def make(function, chance=b""):
        with tf.Graph().as_default() as made:
            x = tf.compat.v1.placeholder(tf.float32, [None], name="x")
            y = function(x)
        given = {"x": b"images", "v": b"v"}
        return computations.of_graph(made.as_graph_def(), given, chance, [y.name])

    return make


def test_graphs_are_told_apart_as_functions_are(tf, graph):
    one = graph(lambda x: tf.nn.relu(x) * 2.0)
    assert graph(lambda x: tf.multiply(tf.identity(tf.nn.relu(x)), 2.0, "mine")) == one
    assert graph(lambda x: tf.nn.relu(x) * 3.0).outputs != one.outputs
    # What is not needed does not count.
    assert graph(lambda x: (tf.timestamp(), tf.nn.relu(x) * 2.0)[1]) == one
    with pytest.raises(computations.CannotTell, match="Timestamp"):
        graph(lambda x: x + tf.cast(tf.timestamp(), tf.float32))


def test_outputs_of_one_op_are_told_apart(tf, graph):
    first = graph(lambda x: tf.split(x, 2)[0])
    assert graph(lambda x: tf.split(x, 2)[1]).outputs != first.outputs


def variable(tf, **options):
    return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], name="v", **options)


def test_what_a_graph_is_given_counts_with_its_attributes(tf, graph):
    def reading(**options):
        def read(x):
            handle = variable(tf, **options)
            return x * tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)

        return graph(read)

    assert reading().outputs == reading().outputs
    assert reading().outputs != reading(shared_name="another").outputs


def test_what_a_graph_changes_before_it_reads_counts(tf, graph):
    def read(x, change, waits):
        handle = variable(tf)
        writes = [tf.raw_ops.AssignVariableOp(resource=handle, value=0.0)] * change
        with tf.control_dependencies(writes * waits):
            same = tf.identity(handle)
        with tf.control_dependencies(writes):
            y = tf.identity(x)
        return y * tf.raw_ops.ReadVariableOp(resource=same, dtype=tf.float32)

    plain = graph(lambda x: read(x, change=False, waits=False))
    for waits in (False, True):
        found = graph(lambda x, waits=waits: read(x, change=True, waits=waits))
        assert found.outputs != plain.outputs
        assert found.of_output(0) != plain.of_output(0)
        assert found.effects


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
    told = saved_model._Told(
        model,
        model.signatures.get("serving_default"),
        {v.name.removesuffix(":0"): v for v in model.variables},
    )
    assert told.is_plain_repeated
    assert told.is_training_repeated
    assert told.is_serving_repeated is (version == "v5")


@pytest.mark.usefixtures("thin")
@pytest.mark.parametrize(
    "is_changed, differing",
    [
        (lambda given: not given, ["serving_default/logits"]),
        (lambda given: given == [False, False], ["logits"]),
        (lambda given: given == [True, False], []),
    ],
)
def test_a_function_that_differs_is_run(
    v5, thin_exported, thin, tmp_path, is_changed, differing
):
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

    (_, good), (_, report) = in_turn(thin, v5, changed)
    assert good.passed
    assert not report.passed
    with saved_model.open(v5) as original, saved_model.open(changed) as opened:
        expected, found = original.run(SMALL), opened.run(SMALL)
        # Which `run` does not run, in training.
        assert bool(opened.check()) is not bool(differing)
    assert differing == [
        name for name in expected if not np.array_equal(expected[name], found[name])
    ]


@pytest.mark.usefixtures("thin")
def test_what_cannot_be_told_is_run(v5, monkeypatch):
    def fail(*given):
        raise computations.CannotTell("a cycle")

    with saved_model.open(v5) as opened:
        expected = opened.run(SMALL)
        monkeypatch.setattr(computations, "of", fail)
    with saved_model.open(v5) as opened:
        found = opened.run(SMALL)
        assert opened.check() == []
        assert opened.computations() == {}
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5)


def named(thin_exported, task, version):
    return thin_exported / f"inception_resnet_v2-{task}-{version}-stand-in"


def opened(path):
    container = hub_module if (path / "tfhub_module.pb").exists() else saved_model
    return container.open(path)


def new_reference(thin):
    """One with which nothing has been compared."""
    return Reference(thin.reference.checkpoint, thin.build.graphs)


def in_turn(thin, *paths):
    reference = new_reference(thin)
    return [compared(reference, thin.images, path) for path in paths]


def compared(reference, images_, path):
    """What is run of an artifact, with how many images, and the report."""
    told = []

    def counting(name, function):
        def count(batch):
            told.append((name, len(batch)))
            return function(batch)

        return count

    with reference, opened(path) as artifact:
        functions = {n: getattr(artifact, n) for n in ("run", "train", "main_only")}
        counted = dataclasses.replace(
            artifact, **{n: counting(n, f) for n, f in functions.items()}
        )
        tolerance = FORMATS[artifact.format].tolerance
        return told, parity.compare(counted, reference, images_, tolerance)


ALL = [("run", 4), ("train", 4)]
ONE_IMAGE = [("run", 1)]


@pytest.mark.parametrize(
    "names, run",
    [
        # v5 is v4 with a signature; another task has another output, and trains alike.
        (["classification v4", "classification v5"], [ALL * 2, ONE_IMAGE * 2]),
        (["classification v4", "feature_vector v4"], [ALL * 2, [("run", 4)] * 2]),
        # A module for classes has the features as well.
        (
            ["classification v3", "feature_vector v3"],
            [ALL * 2, [("run", 1), ("train", 4)] * 2],
        ),
        (["feature_vector v1", "classification v1"], [ALL, ALL]),
        # v1 averages over its fixed size.
        (["feature_vector v1", "feature_vector v3"], [ALL, ALL * 2]),
    ],
)
def test_what_is_run_of_the_second(thin_exported, thin, names, run):
    paths = [named(thin_exported, *name.split()) for name in names]
    found = in_turn(thin, *paths)
    assert [told for told, _ in found] == run
    assert all(report.passed for _, report in found)
    # What a manifest says is the same, whatever was compared before.
    (_, alone) = in_turn(thin, paths[1])[0]
    assert found[1][1] == alone


@pytest.mark.parametrize(
    "version, variable", [("v3", "weights"), ("v4", "BatchNorm/moving_mean")]
)
def test_a_changed_number_has_all_run(
    thin_exported, thin, tf, tmp_path, version, variable
):
    path = named(thin_exported, "feature_vector", version)
    changed = tmp_path / "changed"
    shutil.copytree(path, changed)
    values = thin.build.checkpoint[f"InceptionResnetV2/Conv2d_2a_3x3/{variable}"]
    change_one_number(tf, changed / "variables" / "variables", values)
    (_, first), (told, second) = in_turn(thin, path, changed)
    assert first.passed
    assert ("run", 4) in told
    assert not second.passed
    assert not second.main.passed


def without_an_update(meta_graphs):
    del meta_graphs[1].collection_def["update_ops"].node_list.value[0]


def without_a_variable(meta_graphs):
    del meta_graphs[1].collection_def["variables"].bytes_list.value[1]


def of_one_size(meta_graphs):
    for node in meta_graphs[0].graph_def.node:
        if node.name == "hub_input/images":
            for dimension in node.attr["shape"].shape.dim[1:3]:
                dimension.size = 139


def with_another_epsilon(meta_graphs):
    nodes = meta_graphs[0].graph_def.node
    next(n for n in nodes if n.op.startswith("FusedBatchNorm")).attr["epsilon"].f = 1


@pytest.mark.parametrize(
    "change, says",
    [
        (without_an_update, None),
        (without_a_variable, "Graph execution error"),
        (of_one_size, "Cannot feed value of shape"),
        (with_another_epsilon, None),
    ],
)
def test_a_changed_module_is_found_after_a_good_one(
    thin_exported, thin, tmp_path, change, says
):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    good, changed = named(thin_exported, "classification", "v3"), tmp_path / "changed"
    shutil.copytree(good, changed)
    content = SavedModel.FromString((good / "saved_model.pb").read_bytes())
    change(content.meta_graphs)
    (changed / "saved_model.pb").write_bytes(content.SerializeToString())
    reference = new_reference(thin)
    assert compared(reference, thin.images, good)[1].passed
    if says is None:
        assert not compared(reference, thin.images, changed)[1].passed
    else:
        with pytest.raises(ArtifactError, match=says):
            compared(reference, thin.images, changed)


def test_a_trace_for_one_size_is_found_after_a_good_one(thin_exported, thin, tmp_path):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    good, changed = named(thin_exported, "classification", "v4"), tmp_path / "changed"
    shutil.copytree(good, changed)
    content = SavedModel.FromString((good / "saved_model.pb").read_bytes())
    traces = content.meta_graphs[0].object_graph_def.concrete_functions
    for trace in traces.values():
        if flags(trace) == [False, True]:
            arguments = trace.canonicalized_input_signature.tuple_value.values[0]
            shape = arguments.tuple_value.values[0].tensor_spec_value.shape
            for dimension in shape.dim[1:3]:
                dimension.size = 139
    (changed / "saved_model.pb").write_bytes(content.SerializeToString())
    reference = new_reference(thin)
    assert compared(reference, thin.images, good)[1].passed
    with pytest.raises(ArtifactError, match="matching concrete function"):
        compared(reference, thin.images, changed)


def change_one_number(tf, bundle, values):
    """Changes the first number of the variable that holds some values."""
    reader = tf.train.load_checkpoint(str(bundle))
    tensors = {
        name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()
    }
    (name,) = (n for n, found in tensors.items() if np.array_equal(found, values))
    tensors[name] = values.copy()
    tensors[name].flat[0] += 1
    tf.raw_ops.SaveV2(
        prefix=str(bundle),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )


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
