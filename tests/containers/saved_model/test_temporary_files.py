from __future__ import annotations

import tempfile

from exporters.containers.saved_model import container


def test_what_tensorflow_writes_while_it_saves_is_in_the_scratch_directory(
    monkeypatch, tmp_path
):
    import tensorflow as tf

    system, scratch = tmp_path / "system", tmp_path / "scratch"
    system.mkdir()
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(system))
    model = tf.train.Checkpoint(scale=tf.Variable(2.0))
    spec = tf.TensorSpec([], tf.float32, name="x")
    double = tf.function(
        lambda x: x * model.scale, input_signature=[spec], autograph=False
    )
    with container._temporary_files_in(scratch):
        tf.saved_model.save(model, str(tmp_path / "model"), double)
        assert tempfile.gettempdir() == str(scratch)
    assert tempfile.gettempdir() == str(system)
    assert list(system.iterdir()) == []
