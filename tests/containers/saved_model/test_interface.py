"""What programs see of v4: its traces, variables and losses."""

import pytest

from exporters.network.tasks import CLASSIFICATION, TASKS


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_interface(exported, task):
    import tensorflow as tf

    path = exported / f"inception_resnet_v2-{task}-v4-stand-in"
    model = tf.saved_model.load(str(path))
    signatures = {
        (trace.structured_input_signature[0][1:3])
        for trace in model.__call__.concrete_functions
    }
    assert signatures == {(a, b) for a in (False, True) for b in (False, True)}
    trace = model.__call__.concrete_functions[0]
    inputs, _, _, momentum = trace.structured_input_signature[0]
    assert inputs.shape.as_list() == [None, None, None, 3]
    assert (inputs.name, momentum.name) == ("inputs", "batch_norm_momentum")
    assert momentum.shape.rank == 0
    names = trace.function_type.parameters.keys()
    assert list(names) == [
        "inputs",
        "training",
        "return_endpoints",
        "batch_norm_momentum",
    ]
    has_classifier = task == CLASSIFICATION.name
    assert len(model.variables) == 896 + 2 * has_classifier
    assert len(model.trainable_variables) == 488 + 2 * has_classifier
    assert len(model.regularization_losses) == 284 + 2 * has_classifier
    assert not model.signatures
