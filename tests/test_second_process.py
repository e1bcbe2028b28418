from __future__ import annotations

import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import thin_build
from errands import crash, fail, identity, outputs, slow

from checkpoints import files
from checkpoints.errors import CheckpointError
from checkpoints.reader import open_checkpoint
from exporters import comparing, second_process
from exporters.build import ExportOptions
from exporters.errors import ArtifactError
from exporters.exporting import export
from exporters.parity import ParityImages
from exporters.reference import Reference
from exporters.second_process import SecondProcess
from exporters.verification import verify

FILE = Path("model.onnx")


def test_a_checkpoint_that_cannot_be_used_is_told(tmp_path):
    file = tmp_path / "empty.ckpt"
    file.touch()
    with SecondProcess(file, None, ParityImages()) as second:
        for _ in range(2):
            with pytest.raises(CheckpointError, match=r"empty\.ckpt"):
                second.submit(FILE, identity).result(60)


def test_it_ends_with_the_context(tmp_path):
    with SecondProcess(tmp_path / "missing", None, ParityImages()) as second:
        process, shared = second._process, second.shared
        assert shared.is_dir()
    assert process.poll() == -signal.SIGKILL
    assert not shared.exists()


def test_it_ends_with_its_parent():
    program = """
from pathlib import Path
import os, sys
sys.path[:0] = {path!r}
from exporters.parity import ParityImages
from exporters.second_process import SecondProcess
from exporters.verification import verify
second = SecondProcess(Path("missing"), None, ParityImages())
print(second._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    program = program.format(path=sys.path)
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while Path(f"/proc/{int(done.stdout)}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_it_computes_as_this_process_does(stand_in_file):
    checkpoint = open_checkpoint(stand_in_file)
    images = ParityImages()
    with SecondProcess(stand_in_file, None, images) as second:
        second.expect(checkpoint.identity)
        assert second.submit(FILE, identity).result(300) == checkpoint.identity

        # What it computed is not computed here again.
        there = second.submit(FILE, outputs).result(300)
        files = {file.name for file in second.shared.iterdir()}
        assert {name.partition("-")[0] for name in files if "-" in name} >= {
            "evaluation"
        }
        with Reference(checkpoint, shared=second.shared) as reference:
            reference.run = None
            batch = images.batches(None)[0]
            here = reference.outputs(batch, ["feature_vector"])["feature_vector"]
        assert (here == there).all()

        with pytest.raises(ValueError, match="a bad value") as raised:
            second.submit(FILE, fail).result(300)
        assert "in fail" in "".join(raised.value.__notes__)

        # A crash is of that file; the next one is compared.
        with pytest.raises(ArtifactError, match=r"model\.onnx ended .*signal 11"):
            second.submit(FILE, crash).result(300)
        assert second.submit(FILE, identity).result(300) == checkpoint.identity

        second.expect("another")
        with pytest.raises(CheckpointError, match="changed while it was read"):
            second.submit(FILE, identity).result(300)
        second.expect(checkpoint.identity)
        running = second.submit(FILE, slow)
        while not running.running():
            time.sleep(0.01)
        waiting = second.submit(FILE, identity)
        assert waiting.cancel()
        start = time.monotonic()
    assert time.monotonic() - start < 30
    assert isinstance(running.exception(30), ArtifactError)


@pytest.mark.slow
def test_what_another_process_prepared_is_not_computed(stand_in_file, monkeypatch):
    checkpoint = open_checkpoint(stand_in_file)
    images = ParityImages()
    size = (75, 75)
    with SecondProcess(stand_in_file, None, images) as second:
        second.expect(checkpoint.identity)
        prepared = second.submit(
            FILE, comparing.prepare, ["onnx-float32", "onnx-int8"], size
        )
        with Reference(
            checkpoint, shared=second.shared, prepared=prepared
        ) as reference:
            monkeypatch.setattr(reference, "graph", None)  # It is not built here.
            (batch,) = images.batches(size)
            found = reference.outputs(batch, ["logits"])["logits"]
            ranges = reference.activations(batch).ranges
    with Reference(checkpoint) as reference:
        np.testing.assert_array_equal(reference.run(batch, ["logits"])["logits"], found)
        assert reference.activations(batch).ranges == ranges


@pytest.mark.slow
def test_what_could_not_be_prepared_is_computed(stand_in_file, tmp_path):
    checkpoint = open_checkpoint(stand_in_file)
    failed = Future[None]()
    failed.set_exception(ArtifactError("it crashed"))
    batch = ParityImages().batches((75, 75))[0]
    with Reference(checkpoint, shared=tmp_path, prepared=failed) as reference:
        assert reference.outputs(batch, ["logits"])["logits"].shape == (8, 1001)


IN_THIN = "import thin_network; thin_network.install_for_good(); "


@pytest.mark.slow
def test_two_processes_make_and_say_what_one_does(made_once, monkeypatch, tmp_path):
    formats = ["v4", "onnx-float32", "tflite-int8"]
    import_, _, serve = second_process._PROGRAM.partition("from exporters")
    program = f"{import_}{IN_THIN}from exporters{serve}"
    monkeypatch.setattr(second_process, "_PROGRAM", program)
    reports, files_, there = [], [], []
    submit = SecondProcess.submit

    def counted(self, path, *arguments):
        if path != file:  # Of which it prepares what artifacts are compared with.
            there.append(path)
        return submit(self, path, *arguments)

    monkeypatch.setattr(SecondProcess, "submit", counted)
    with thin_build.installed(made_once) as thin:
        file = thin.reference.checkpoint.path
        for is_possible in (False, True):
            monkeypatch.setattr(second_process, "is_possible", is_possible.__bool__)
            output = tmp_path / str(is_possible)
            made = export(
                file,
                output,
                formats=formats,
                tasks=["feature_vector"],
                options=ExportOptions(image_size=(75, 75)),
                images=thin.images,
            )
            assert made.passed
            assert [item.format for item in made.artifacts] == formats
            assert len(there) == len(formats) * is_possible
            (output / "empty.onnx").touch()
            found = verify(output, file, images=thin.images)
            assert [item.passed for item in found.artifacts] == 3 * [True]
            assert len(found.skipped) == 1
            reports.append(
                [item.report.as_dict() for item in (*made.artifacts, *found.artifacts)]
            )
            names = [each for each in output.rglob("*") if each.is_file()]
            files_.append({str(f.relative_to(output)): files.digest(f) for f in names})
    assert reports[0] == reports[1]
    assert files_[0] == files_[1]
