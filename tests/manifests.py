"""Manifests as exporting writes them, of any format, without exporting."""

import fake_format

from exporters.build import ExportOptions
from exporters.network.tasks import TASKS

PARITY = {
    "images": {"299 x 299": 8},
    "main_output": "logits",
    "outputs": {
        "logits": {
            "relative_error": 1.5e-7,
            "cosine": 1.0,
            "tolerance": {"max_error": 2e-5, "min_cosine": 0.999999},
        }
    },
    "weights": {"count": 490},
}


def described(row, task="classification", **facts):
    options = ExportOptions().recorded(row.options_of(TASKS[task]))
    record = fake_format.record(task, row.name)
    return {
        **record.as_dict(),
        "options": options,
        "labels": ["background", "tench"] if task == "classification" else None,
        "handle": row.handle(task),
        "calibration": "16 generated images" if row.is_calibrated else None,
        "compared_on": "generated images",
        "parity": PARITY if task == "classification" else None,
        "checkpoint": {"file": "x.ckpt", "container": "V1"},
        "versions": {"irv2": "1", "python": "3.11.7", "tf-slim": "1.1.0"},
        "files": {"model": "0" * 64},
        **facts,
    }
