"""inception_resnet_v2 of TF Hub, regenerated: what the command `irv2` does, from Python.

    import irv2

    exported = irv2.export("model.ckpt", "artifacts", formats=["onnx-int8"])
    for artifact in exported.artifacts:
        print(artifact.path, artifact.is_kept)

Importing this module imports nothing heavy: each name is looked up when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checkpoints.download import fetch
    from checkpoints.reader import open_checkpoint
    from exporters.build import ExportOptions
    from exporters.evaluation.comparing import compare_features
    from exporters.evaluation.evaluating import evaluate
    from exporters.evaluation.features import features
    from exporters.exporting import export
    from exporters.identification import identify
    from exporters.inspection import inspect
    from exporters.progress import Note, Step
    from exporters.rebuilding import rebuild
    from exporters.reporting.reporting import report
    from exporters.signatures import TrustedIdentity, TrustedKey
    from exporters.signing import sign
    from exporters.stand_in import make_stand_in
    from exporters.tfhub.cache import install, uninstall
    from exporters.tfhub.packing import pack
    from exporters.verification import verify

_PLACES = {
    "ExportOptions": "exporters.build",
    "Note": "exporters.progress",
    "Step": "exporters.progress",
    "TrustedIdentity": "exporters.signatures",
    "TrustedKey": "exporters.signatures",
    "compare_features": "exporters.evaluation.comparing",
    "evaluate": "exporters.evaluation.evaluating",
    "export": "exporters.exporting",
    "features": "exporters.evaluation.features",
    "fetch": "checkpoints.download",
    "identify": "exporters.identification",
    "inspect": "exporters.inspection",
    "install": "exporters.tfhub.cache",
    "make_stand_in": "exporters.stand_in",
    "open_checkpoint": "checkpoints.reader",
    "pack": "exporters.tfhub.packing",
    "rebuild": "exporters.rebuilding",
    "report": "exporters.reporting.reporting",
    "sign": "exporters.signing",
    "uninstall": "exporters.tfhub.cache",
    "verify": "exporters.verification",
}

__all__ = [
    "ExportOptions",
    "Note",
    "Step",
    "TrustedIdentity",
    "TrustedKey",
    "compare_features",
    "evaluate",
    "export",
    "features",
    "fetch",
    "identify",
    "inspect",
    "install",
    "make_stand_in",
    "open_checkpoint",
    "pack",
    "rebuild",
    "report",
    "sign",
    "uninstall",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'irv2' has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
