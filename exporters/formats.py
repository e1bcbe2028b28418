"""The table of formats: what each is called, who writes and opens it, how exact it is."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import mmap
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from checkpoints import crashes, hdf5, keras_weights, safetensors, wire
from exporters.artifact import OpenedArtifact, Sections
from exporters.build import BEFORE, SYMMETRIC, Build, ExportOptions
from exporters.containers.hub_module.versions import V1, V3
from exporters.containers.saved_model.versions import WITH_SIGNATURE, WITHOUT_SIGNATURE
from exporters.containers.tfjs import versions as tfjs
from exporters.containers.tflite.versions import AUXILIARY
from exporters.engines import LITERT, ONNX_RUNTIME, OPENVINO, Library
from exporters.errors import ArtifactError, UnknownFormatError
from exporters.network.layers import NUM_CLASSES
from exporters.network.quantization import Precision
from exporters.network.tasks import CLASSIFICATION, TASKS, Task
from exporters.parity import LooseInTraining, Tolerance, ToleranceWithExceptions
from exporters.record import Record

MODEL = "inception_resnet_v2"
TF_HUB = "https://tfhub.dev/"


@dataclasses.dataclass(frozen=True)
class Container:
    """A container format.

    Attributes:
      module: name of the module with `write(build, variant, task, record, path)` and
        `open(path)`. It is loaded when it is used, and its libraries with it.
      suffix: file suffix; empty for a directory.
      holds: whether a path looks like this container, judged by its content.
      needs_image_size: whether an artifact is bound to the size of its images.
      can_train: whether an artifact has a graph of training.
      handle: pattern of the URLs that TF Hub knew such artifacts by, where it did.
      is_served_as_files: whether clients ask for its files below that URL; others ask for
        an archive, and keep it in a cache.
      snippet: name of the template in `data/snippets` of a program that runs it; empty if
        there is none.
      library: what Hugging Face's hub calls its consumer's library.
      takes_signed: whether images are in [-1, 1], and not in [0, 1].
      leaves_background_out: whether "background" is none of its classes.
      has_test_vectors: whether images and what it should make of them lie beside it, for
        runtimes that are not here.
      engines: what can run it, its own first; none where there is no choice.
      biases_of_symmetric: in what numbers biases are where activations are symmetric.
    """

    module: str
    suffix: str
    holds: Callable[[Path], bool]
    needs_image_size: bool = False
    can_train: bool = False
    handle: str = f"{TF_HUB}google/imagenet/{MODEL}/{{task}}/{{version}}"
    is_served_as_files: bool = False
    snippet: str = ""
    library: str = ""
    takes_signed: bool = False
    leaves_background_out: bool = False
    has_test_vectors: bool = False
    engines: tuple[Library, ...] = ()
    biases_of_symmetric: str = "int32"


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that tasks can be exported to.

    Attributes:
      name: as users type it.
      container: what it is stored in.
      variant: what sets it apart from others in its container, for its `write`.
      summary: one line for users.
      tolerance: what `irv2 verify` asks of it.
      published_version: version in the handle it was published under, if it was.
      options: the fields of `ExportOptions` that it heeds.
      tasks: what it can be exported for.
      needs_auxiliary_head: whether it takes a checkpoint with the auxiliary head.
    """

    name: str
    container: Container
    variant: Any
    summary: str
    tolerance: Tolerance
    published_version: int | None = None
    options: tuple[str, ...] = ()
    tasks: tuple[Task, ...] = tuple(TASKS.values())
    needs_auxiliary_head: bool = False

    @property
    def precision(self) -> Precision | None:
        """In what numbers it is; None if it holds the checkpoint's variables."""
        if isinstance(self.variant, Precision):
            return self.variant
        return getattr(self.variant, "precision", None)

    @property
    def takes_signed(self) -> bool:
        """Whether images are in [-1, 1] whatever the options, and not in [0, 1]."""
        is_signed = getattr(self.variant, "takes_signed", False)
        return self.container.takes_signed or is_signed

    @property
    def fixed_image_size(self) -> tuple[int, int] | None:
        """The (height, width) that it takes whatever the options, None if others do."""
        size: tuple[int, int] | None = getattr(self.variant, "image_size", None)
        return size

    @property
    def is_calibrated(self) -> bool:
        """Whether calibration images have a part in it."""
        return bool(self.precision and self.precision.activations != "float32")

    @property
    def takes_budget(self) -> bool:
        """Whether parts of it may stay in float, as a budget demands."""
        return "keep_float" in self.options

    def write(self, build: Build, task: Task, record: Record, path: Path) -> None:
        """Writes the artifact of a task at `path`."""
        module = importlib.import_module(self.container.module)
        module.write(build, self.variant, task, record, path)

    def completed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of a record, with what it means that others are not in it."""
        before = {name: BEFORE[name] for name in self.options if name in BEFORE}
        return {**before, **options}

    def with_options(self, options: Mapping[str, Any]) -> Format:
        """The row as options of a record change it: how much of it is rounded."""
        completed = self.completed(options)
        given = {name: completed.get(name) for name in self.options}
        changes: dict[str, Any] = {}
        if given.get("full_integer"):
            changes["in_float"] = ()
        if blocks := given.get("keep_float"):
            changes["float_blocks"] = tuple(blocks)
        if given.get("int8_activations") == SYMMETRIC:
            biases = self.container.biases_of_symmetric
            changes |= {"is_symmetric": True, "biases": biases}
        if given.get("reduce_range"):
            changes["is_reduced"] = True
        if not changes or not isinstance(self.variant, Precision):
            return self
        return dataclasses.replace(
            self, variant=dataclasses.replace(self.variant, **changes)
        )

    def handle(self, task_name: str) -> str | None:
        """The URL that TF Hub knew the artifact by."""
        if self.published_version is None:
            return None
        return self.container.handle.format(
            task=task_name, version=self.published_version
        )

    def options_of(self, task: Task) -> tuple[str, ...]:
        """The fields of `ExportOptions` that it heeds for a task."""
        return tuple(
            name for name in self.options if name != "softmax" or task.needs_classifier
        )

    def artifact_name(
        self,
        task: Task,
        is_stand_in: bool,
        options: ExportOptions | None = None,
        num_classes: int | None = NUM_CLASSES,
        *,
        has_budget: bool = False,
    ) -> str:
        """File or directory name of an artifact.

        Choices that are not the default have a part in it, so that none is taken for
        another, or replaced by it.
        """
        words = [MODEL, task.name, self.name]
        if num_classes not in (None, NUM_CLASSES):
            words.insert(1, f"{num_classes}-classes")
        if options:
            words += options.chosen(self.options_of(task))
        if has_budget and self.takes_budget:
            words.append("budget")
        if is_stand_in:
            words.append("stand-in")
        return "-".join(words) + self.container.suffix


def _first_bytes(path: Path, count: int = 8) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(count)


def _is_keras_model(path: Path) -> bool:
    return keras_weights.is_model(path, _first_bytes(path))


def _is_hdf5(path: Path) -> bool:
    return _first_bytes(path) == hdf5.MAGIC


def _is_safetensors(path: Path) -> bool:
    beginning = _first_bytes(path, 9)
    return bool(beginning) and safetensors.is_one(beginning, path.stat().st_size)


def _is_tflite(path: Path) -> bool:
    return _first_bytes(path)[4:] == b"TFL3"


def _is_onnx(path: Path) -> bool:
    """Whether a file's fields are those of a ModelProto.

    It starts with the number of its IR version, as a SavedModel does with that of its
    schema; only the former has a graph, field 7, and only once.
    """
    if _first_bytes(path)[:1] != b"\x08":
        return False
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    numbers: set[int] = set()
    with contextlib.suppress(wire.WireError):
        numbers.update(number for number, _ in wire.fields(memoryview(content)))
    return _ONNX_GRAPH in numbers


_ONNX_GRAPH = 7

_HUB_MODULE = Container(
    "exporters.containers.hub_module.container",
    "",
    lambda path: (path / "tfhub_module.pb").is_file(),
    can_train=True,
    snippet="hub_module",
    library="tf-keras",
)
_SAVED_MODEL = Container(
    "exporters.containers.saved_model.container",
    "",
    lambda path: (path / "saved_model.pb").is_file(),
    can_train=True,
    snippet="saved_model",
    library="tf-keras",
)
_TFJS = Container(
    "exporters.containers.tfjs.container",
    "",
    lambda path: (path / "model.json").is_file(),
    handle=f"{TF_HUB}google/tfjs-model/imagenet/{MODEL}/{{task}}/{{version}}/default/1",
    is_served_as_files=True,
    snippet="tfjs",
    library="tfjs",
    has_test_vectors=True,
)
_TFLITE = Container(
    "exporters.containers.tflite.container",
    ".tflite",
    _is_tflite,
    needs_image_size=True,
    handle=f"{TF_HUB}tensorflow/lite-model/{MODEL}/{{version}}/metadata/1",
    snippet="tflite",
    library="litert",
    has_test_vectors=True,
    engines=(LITERT, OPENVINO),
)
_ONNX = Container(
    "exporters.containers.onnx.container",
    ".onnx",
    _is_onnx,
    snippet="onnx",
    library="onnx",
    has_test_vectors=True,
    engines=(ONNX_RUNTIME, OPENVINO),
    # TensorRT's parser refuses a DequantizeLinear of int32.
    biases_of_symmetric="float32",
)
_KERAS = Container(
    "exporters.containers.keras.container",
    ".keras",
    _is_keras_model,
    snippet="keras",
    library="keras",
)
_KERAS_WEIGHTS = Container(
    "exporters.containers.keras.application",
    ".weights.h5",
    _is_hdf5,
    snippet="keras_weights",
    library="keras",
    takes_signed=True,
    leaves_background_out=True,
)
_TIMM = Container(
    "exporters.containers.timm.container",
    ".safetensors",
    _is_safetensors,
    snippet="timm",
    library="timm",
    takes_signed=True,
    leaves_background_out=True,
)

_EXACT = Tolerance(max_error=2e-5, min_cosine=0.999999)
_HALF = Tolerance(max_error=2e-2, min_cosine=0.999)
# Measured with stand-ins of sixteen seeds, whose random classifiers mostly see noise.
# Gross faults, such as residuals that are twice as large, are beyond all of these; finer
# ones hide in the noise of quantization, and are found by comparing every weight and
# every scale. Averaging over positions takes away most of the noise of the last
# convolution; of small images, there are few positions to average.
_LAST_CONVOLUTION = {"Conv2d_7b_1x1": Tolerance(max_error=0.5, min_cosine=0.82)}
_FEATURES = Tolerance(max_error=0.5, min_cosine=0.9)
_LOGITS = Tolerance(max_error=0.5, min_cosine=0.8)
_QUANTIZED = ToleranceWithExceptions(
    max_error=0.25,
    min_cosine=0.95,
    outputs=_LAST_CONVOLUTION
    | dict.fromkeys(("Logits", "Predictions"), Tolerance(0.3, 0.92)),
    of_small=ToleranceWithExceptions(
        max_error=0.5,
        min_cosine=0.95,
        outputs=_LAST_CONVOLUTION
        | dict.fromkeys(("global_pool", "PreLogitsFlatten"), _FEATURES)
        | dict.fromkeys(("Logits", "Predictions"), _LOGITS),
    ),
)

_FLOAT32 = Precision()
# The first kernels look for small differences between neighbouring pixels, in which the
# rounding of images and kernels would be most of the error.
_FIRST = ("Conv2d_1a_3x3",)
_STEM = (*_FIRST, "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_3a_3x3", "Conv2d_3b_1x1")
# What of the stem LiteRT computes in float32 in no more time.
_STEM_OF_LITERT = (*_FIRST, "Conv2d_3b_1x1")
_HEAD = ("global_pool", "PreLogitsFlatten", "Logits", "Predictions")
# Of which the sums are small, so that ONNX Runtime takes hardly more time for them.
_BLOCK8 = (*(f"block8_{number}" for number in range(1, 10)), "Block8")

_ONNX_OPTIONS = ("image_size", "nchw", "endpoints")
_TFLITE_OPTIONS = ("image_size", "softmax", "signed_input")
TOLERANCES = {"float32": _EXACT, "float16": _HALF, "int8": _QUANTIZED}
"""What is asked of files by the coarsest numbers that they hold, whoever made them."""

FORMATS = {
    row.name: row
    for row in (
        Format("v1", _HUB_MODULE, V1, "TF1 hub.Module, fixed 299 x 299", _EXACT, 1),
        Format("v3", _HUB_MODULE, V3, "TF1 hub.Module, any image size", _EXACT, 3),
        Format(
            "v4",
            _SAVED_MODEL,
            WITHOUT_SIGNATURE,
            "TF2 SavedModel for hub.KerasLayer",
            _EXACT,
            4,
        ),
        Format(
            "v5",
            _SAVED_MODEL,
            WITH_SIGNATURE,
            "v4 with a serving signature",
            _EXACT,
            5,
        ),
        Format(
            "tfjs-v1", _TFJS, tfjs.V1, "TF.js graph model, fixed 299 x 299", _EXACT, 1
        ),
        Format(
            "tfjs-v3", _TFJS, tfjs.V3, "TF.js graph model, any image size", _EXACT, 3
        ),
        Format(
            "tfjs-v3-float16",
            _TFJS,
            tfjs.ModelVersion(None, Precision("float16", in_float=_FIRST)),
            "tfjs-v3, float16 weights",
            _HALF,
        ),
        Format(
            "tfjs-v3-uint8",
            _TFJS,
            tfjs.ModelVersion(None, Precision("uint8", in_float=_STEM)),
            "tfjs-v3, uint8 weights",
            _QUANTIZED,
        ),
        Format("onnx-float32", _ONNX, _FLOAT32, "ONNX", _EXACT, options=_ONNX_OPTIONS),
        Format(
            "onnx-float16",
            _ONNX,
            Precision("float16", "float16", in_float=_FIRST),
            "ONNX in half precision",
            _HALF,
            options=_ONNX_OPTIONS,
        ),
        Format(
            "onnx-int8",
            _ONNX,
            Precision("int8", "int8", in_float=_STEM + _HEAD, float_sums=_BLOCK8),
            "ONNX quantized (QDQ, per channel)",
            _QUANTIZED,
            options=(*_ONNX_OPTIONS, "keep_float", "int8_activations", "reduce_range"),
        ),
        Format(
            "tflite-published",
            _TFLITE,
            AUXILIARY,
            "TFLite as published: the weaker, auxiliary classifier",
            _EXACT,
            1,
            tasks=(CLASSIFICATION,),
            needs_auxiliary_head=True,
        ),
        Format(
            "tflite-float32",
            _TFLITE,
            _FLOAT32,
            "TFLite",
            _EXACT,
            options=_TFLITE_OPTIONS,
        ),
        Format(
            "tflite-float16",
            _TFLITE,
            Precision("float16"),
            "TFLite, float16 weights",
            _HALF,
            options=_TFLITE_OPTIONS,
        ),
        Format(
            "tflite-dynamic-int8",
            _TFLITE,
            Precision("int8", in_float=_FIRST),
            "TFLite, int8 weights",
            _QUANTIZED,
            options=_TFLITE_OPTIONS,
        ),
        Format(
            "tflite-int8",
            _TFLITE,
            Precision("int8", "int8", in_float=_STEM_OF_LITERT + _HEAD),
            "TFLite quantized (per channel)",
            _QUANTIZED,
            options=(
                *_TFLITE_OPTIONS,
                "integer_type",
                "full_integer",
                "keep_float",
                "int8_activations",
            ),
        ),
        Format(
            "keras",
            _KERAS,
            None,
            "Keras 3 model, on every backend",
            LooseInTraining(_EXACT.max_error, _EXACT.min_cosine),
        ),
        Format(
            "keras-weights",
            _KERAS_WEIGHTS,
            None,
            "weights for keras.applications",
            _EXACT,
        ),
        Format("timm", _TIMM, None, "weights for timm, in PyTorch", _EXACT),
    )
}

*_SUFFIXES, _LAST_SUFFIX = dict.fromkeys(
    row.container.suffix for row in FORMATS.values() if row.container.suffix
)
EXPECTED = (
    "a directory with saved_model.pb or model.json, or a file that is "
    f"{', '.join(_SUFFIXES)} or {_LAST_SUFFIX}"
)
"""What an artifact looks like, for errors."""


def select(
    names: Iterable[str] | None, table: Mapping[str, Format] = FORMATS
) -> list[Format]:
    """Returns the rows with these names, all rows for None.

    Raises:
      UnknownFormatError: a name is not in the table.
    """
    if names is None:
        return list(table.values())
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in table]
    if unknown:
        raise UnknownFormatError(
            f"unknown format {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(table)}"
        )
    return [table[name] for name in names]


def select_tasks(names: Iterable[str] | None) -> list[Task]:
    """Returns the tasks with these names, all for None.

    Raises:
      UnknownFormatError: there is no task of a name.
    """
    if names is None:
        return list(TASKS.values())
    names = list(dict.fromkeys(names))
    unknown = [name for name in names if name not in TASKS]
    if unknown:
        raise UnknownFormatError(
            f"unknown task {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(TASKS)}"
        )
    return [TASKS[name] for name in names]


def container_of(path: Path, table: Mapping[str, Format] = FORMATS) -> Container | None:
    """Finds out what kind of artifact a path holds, by its content; None for none."""
    containers = dict.fromkeys(row.container for row in table.values())
    return next((kind for kind in containers if kind.holds(path)), None)


def open_artifact(
    path: Path, table: Mapping[str, Format] = FORMATS, engine: str | None = None
) -> tuple[OpenedArtifact, Format]:
    """Opens an artifact with its consumer's library.

    Args:
      path: the artifact.
      table: of formats.
      engine: name of what runs it, of `exporters.engines`; None for its own.

    Returns:
      The artifact, to be closed after use, and its row of the table.

    Raises:
      ArtifactError: the path holds nothing that the table knows, or it is damaged; or the
        engine is not for it.
    """
    container = container_of(path, table)
    if container is None:
        if not os.path.lexists(path):
            raise ArtifactError(f"{path} does not exist. Expected an artifact.")
        suffixes = {row.container.suffix for row in table.values()} - {""}
        called = next((s for s in suffixes if path.name.endswith(s)), None)
        damaged = f" It is called {called}: it may be damaged." if called else ""
        raise ArtifactError(
            f"{path} is no artifact of a known format.{damaged} Expected {EXPECTED}."
        )
    module = importlib.import_module(container.module)
    if engine is not None:
        _check_engine(path, container, engine)
    with crashes.blamed(path, ArtifactError):
        opened = module.open(path) if engine is None else module.open(path, engine)
        artifact = _blaming(path, opened)
    row = table.get(artifact.format)
    if row is None or row.container is not container:
        artifact.close()
        raise ArtifactError(
            f"{path} says that it is {artifact.format!r}, which is no format of its "
            f"kind; there are: {', '.join(table)}. It was changed, or made by another "
            "version of irv2."
        )
    return artifact, row.with_options(
        artifact.record.options if artifact.record else {}
    )


def _check_engine(path: Path, container: Container, engine: str) -> None:
    names = [library.name for library in container.engines]
    if engine not in names:
        which = f"expected {' or '.join(names)}" if names else "it has its own alone"
        raise ArtifactError(f"{path} cannot be run by {engine}: {which}.")


def _blaming(path: Path, artifact: OpenedArtifact) -> OpenedArtifact:
    """Returns an artifact that is named wherever its library is at work."""
    named = functools.partial(crashes.blaming, path, ArtifactError)
    cut = artifact.sections

    def sections(layers: Sequence[str]) -> Sections:
        assert cut
        found = named(cut)(layers)
        return dataclasses.replace(
            found, through=named(found.through), apart=named(found.apart)
        )

    return dataclasses.replace(
        artifact,
        run=named(artifact.run),
        train=artifact.train and named(artifact.train),
        main_only=artifact.main_only and named(artifact.main_only),
        computations=named(artifact.computations),
        weights=named(artifact.weights),
        activations=named(artifact.activations),
        windows=named(artifact.windows),
        check=named(artifact.check),
        sections=sections if cut else None,
    )
