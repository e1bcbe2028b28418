"""`irv2 identify`: what it says of files, and how it ends."""

import json

import narrow_network
import numpy as np
import pytest

from checkpoints import safetensors

CHECKPOINT = narrow_network.checkpoint()
PLAIN = {n: v for n, v in CHECKPOINT.items() if "/AuxLogits/" not in n}


@pytest.fixture
def identify(monkeypatch, irv2):
    """Calls the command with the checkpoint of the narrow network, or without."""
    narrow_network.install(monkeypatch)
    monkeypatch.setattr(
        "exporters.identification.open_checkpoint", lambda *_, **__: CHECKPOINT
    )

    def call(*arguments):
        done = irv2("identify", *arguments)
        return done.code, done

    return call


def save(path, **changed):
    with path.open("wb") as file:
        safetensors.write(file, PLAIN | changed, {})
    return path


def fields(text):
    return dict(line.split(maxsplit=1) for line in text.splitlines()[1:] if line)


def test_the_same_weights(identify, tmp_path):
    path = save(tmp_path / "it.safetensors")
    code, told = identify(path, "--checkpoint", "narrow.ckpt")
    assert code == 0
    assert told.out.splitlines()[0] == str(path)
    found = fields(told.out.replace("batch norm", "batch_norm"))
    assert found["form"] == "safetensors"
    assert found["network"] == "inception_resnet_v2 (certain)"
    assert found["batch_norm"] == "on its own"
    assert found["classes"] == "11"
    assert found["images"] == "in [-1, 1]"
    assert found["weights"] == "the checkpoint's"
    assert found["matched"] == "245 of 245 layers"
    assert "differing" not in found


def test_what_differs(identify, tmp_path):
    name = "InceptionResnetV2/Conv2d_4a_3x3"
    kernel = PLAIN[f"{name}/weights"]
    changed = kernel + 0.1 * np.abs(kernel).mean()
    moved = PLAIN["InceptionResnetV2/Conv2d_2b_3x3/BatchNorm/beta"] + 1
    path = save(
        tmp_path / "it",
        **{
            f"{name}/weights": changed,
            "InceptionResnetV2/Conv2d_2b_3x3/BatchNorm/beta": moved,
        },
    )
    code, told = identify(path, "--checkpoint", "narrow.ckpt")
    assert code == 0
    assert "fine-tuned from the checkpoint's" in told.out
    assert "Conv2d_2b_3x3: biases or batch norm by " in told.out
    assert "Conv2d_4a_3x3: kernel by 0.0" in told.out


def test_without_a_checkpoint(identify, tmp_path):
    code, told = identify(save(tmp_path / "it"))
    assert code == 0
    assert "inception_resnet_v2 (certain)" in told.out
    assert "matched" not in told.out


def test_for_machines(identify, tmp_path):
    good, bad = save(tmp_path / "good"), tmp_path / "bad"
    bad.write_text("no weights")
    code, told = identify(good, bad, "--checkpoint", "narrow.ckpt", "--json")
    assert code == 3
    result = json.loads(told.out)
    assert result["checkpoint_identity"] == CHECKPOINT.identity
    first, second = result["files"]
    assert (first["relation"], first["error"]) == ("same", None)
    assert str(bad) in second["error"]
    assert str(bad) in told.err


def test_a_file_that_is_not_there(identify, tmp_path):
    code, told = identify(tmp_path / "nowhere.onnx")
    assert code == 3
    assert f"{tmp_path / 'nowhere.onnx'} does not exist. Expected ONNX" in told.err
    assert told.out == ""
