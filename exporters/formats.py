"""The table of formats: what each is called, who writes and opens it, how exact it is."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterable
from pathlib import Path

from exporters import manifest
from exporters.artifact import ArtifactError, ExportInputs, OpenedArtifact
from exporters.network.graphs import TASKS

MODEL = "inception_resnet_v2"
PUBLISHER_URL = f"https://tfhub.dev/google/imagenet/{MODEL}"


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """How far an artifact may be from the TF-Slim graph it was made of.

    Attributes:
      max_error: largest absolute error allowed, relative to the output's largest
        magnitude.
      min_cosine: smallest cosine allowed between an image's output and its reference.
    """

    max_error: float
    min_cosine: float


@dataclasses.dataclass(frozen=True)
class Container:
    """A container format, and the module with the functions `write` and `open` for it.

    Attributes:
      module: name of the module.
      suffix: file suffix; empty for a directory.
      holds: whether a path looks like this container, judged by its content.
      needs_image_size: whether an artifact is bound to the size of its images.
    """

    module: str
    suffix: str
    holds: Callable[[Path], bool]
    needs_image_size: bool = False

    def open(self, path: Path) -> OpenedArtifact:
        """Opens an artifact with its consumer's library."""
        return importlib.import_module(self.module).open(path)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that every task can be exported to.

    Attributes:
      name: as users type it.
      container: what it is stored in.
      summary: one line for users.
      tolerance: what `irv2 verify` asks of it.
      published_version: version in the handle it was published under, if it was.
      options: the fields of `ExportOptions` that it heeds.
      is_quantized: whether activations are quantized, by ranges from images.
    """

    name: str
    container: Container
    summary: str
    tolerance: Tolerance
    published_version: int | None = None
    options: tuple[str, ...] = ()
    is_quantized: bool = False

    def write(self, inputs: ExportInputs, task: str, path: Path) -> None:
        """Writes the artifact of a task at `path`."""
        module = importlib.import_module(self.container.module)
        module.write(inputs, self.name, task, path)

    def handle(self, task: str) -> str | None:
        """The URL that TF Hub knew the artifact by."""
        if self.published_version is None:
            return None
        return f"{PUBLISHER_URL}/{task}/{self.published_version}"

    def artifact_name(self, task: str, is_stand_in: bool) -> str:
        """File or directory name of an artifact."""
        mark = "-stand-in" if is_stand_in else ""
        return f"{MODEL}-{task}-{self.name}{mark}{self.container.suffix}"


def _first_bytes(path: Path) -> bytes:
    if not path.is_file():
        return b""
    with path.open("rb") as file:
        return file.read(8)


def _is_tflite(path: Path) -> bool:
    return _first_bytes(path)[4:] == b"TFL3"


def _is_onnx(path: Path) -> bool:
    """A ModelProto starts with its field 1, the IR version: a small number."""
    first = _first_bytes(path)
    return len(first) > 1 and first[0] == 8 and first[1] < 32


_HUB_MODULE = Container(
    "exporters.containers.hub_module.container",
    "",
    lambda path: (path / "tfhub_module.pb").is_file(),
)
_SAVED_MODEL = Container(
    "exporters.containers.saved_model.container",
    "",
    lambda path: (path / "saved_model.pb").is_file(),
)
_TFLITE = Container(
    "exporters.containers.tflite.container",
    ".tflite",
    _is_tflite,
    needs_image_size=True,
)
_ONNX = Container("exporters.containers.onnx.container", ".onnx", _is_onnx)
CONTAINERS = (_HUB_MODULE, _SAVED_MODEL, _TFLITE, _ONNX)

_EXACT = Tolerance(max_error=2e-5, min_cosine=0.999999)
_HALF = Tolerance(max_error=2e-2, min_cosine=0.999)
# Logits of a stand-in, whose classifier is random, have the most noise: 0.97. Gross
# faults, such as wrong scales of residuals, are below this; finer ones hide in the noise
# of quantization, and are found by comparing every weight.
_QUANTIZED = Tolerance(max_error=0.25, min_cosine=0.95)

_ONNX_OPTIONS = ("image_size", "nchw", "endpoints")
_TFLITE_OPTIONS = ("image_size", "softmax", "signed_input")

FORMATS = {
    row.name: row
    for row in (
        Format("v1", _HUB_MODULE, "TF1 hub.Module, fixed 299 x 299", _EXACT, 1),
        Format("v3", _HUB_MODULE, "TF1 hub.Module, any image size", _EXACT, 3),
        Format("v4", _SAVED_MODEL, "TF2 SavedModel for hub.KerasLayer", _EXACT, 4),
        Format("v5", _SAVED_MODEL, "v4 with a serving signature", _EXACT, 5),
        Format("onnx-float32", _ONNX, "ONNX", _EXACT, options=_ONNX_OPTIONS),
        Format(
            "onnx-float16",
            _ONNX,
            "ONNX in half precision",
            _HALF,
            options=_ONNX_OPTIONS,
        ),
        Format(
            "onnx-int8",
            _ONNX,
            "ONNX quantized (QDQ, per channel)",
            _QUANTIZED,
            options=_ONNX_OPTIONS,
            is_quantized=True,
        ),
        Format("tflite-float32", _TFLITE, "TFLite", _EXACT, options=_TFLITE_OPTIONS),
        Format(
            "tflite-float16",
            _TFLITE,
            "TFLite, float16 weights",
            _HALF,
            options=_TFLITE_OPTIONS,
        ),
        Format(
            "tflite-dynamic-int8",
            _TFLITE,
            "TFLite, int8 weights",
            _QUANTIZED,
            options=_TFLITE_OPTIONS,
        ),
        Format(
            "tflite-int8",
            _TFLITE,
            "TFLite quantized throughout",
            _QUANTIZED,
            options=(*_TFLITE_OPTIONS, "integer_type"),
            is_quantized=True,
        ),
    )
}


class UnknownFormatError(Exception):
    """A format or task name that is not in the table."""


def select(names: list[str] | None) -> list[Format]:
    """Returns the rows with these names, all rows for None.

    Raises:
      UnknownFormatError: a name is not in the table.
    """
    if names is None:
        return list(FORMATS.values())
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise UnknownFormatError(
            f"unknown format {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(FORMATS)}"
        )
    return [FORMATS[name] for name in dict.fromkeys(names)]


def select_tasks(names: list[str] | None) -> list[str]:
    """Returns the tasks with these names, all for None.

    Raises:
      UnknownFormatError: there is no task of a name.
    """
    unknown = [name for name in names or [] if name not in TASKS]
    if unknown:
        raise UnknownFormatError(
            f"unknown task {', '.join(map(repr, unknown))}; there are: "
            f"{', '.join(TASKS)}"
        )
    return list(dict.fromkeys(names)) if names else list(TASKS)


def container_of(path: Path) -> Container:
    """Finds out what kind of artifact a path holds.

    Raises:
      ArtifactError: nothing that the table knows.
    """
    for container in CONTAINERS:
        if container.holds(path):
            return container
    if not path.exists():
        raise ArtifactError(f"{path} does not exist. Expected an exported artifact.")
    raise ArtifactError(
        f"{path} is no artifact of a known format. Expected a directory with "
        "saved_model.pb, an .onnx file or a .tflite file."
    )


def artifacts_in(paths: Iterable[Path]) -> list[Path]:
    """Returns the artifacts among paths, and those in paths that are directories.

    In a directory, whatever has a manifest counts, even if it is damaged or gone.

    Raises:
      ArtifactError: a path is no artifact, and holds none.
    """
    found = []
    for path in paths:
        if path.is_dir() and not any(kind.holds(path) for kind in CONTAINERS):
            inside = {
                child
                for child in path.iterdir()
                if not child.name.startswith(".")
                and any(kind.holds(child) for kind in CONTAINERS)
            }
            inside |= {
                child.with_name(child.name.removesuffix(manifest.SUFFIX))
                for child in path.glob(f"*{manifest.SUFFIX}")
            }
            if not inside:
                raise ArtifactError(f"{path} is no artifact, and holds none.")
            found += sorted(inside)
        else:
            container_of(path)
            found.append(path)
    return found
