"""Figures as a run of the benchmark may find them."""

import pytest

from benchmarks.figures import (
    IRV2,
    Agreement,
    Artifact,
    Everything,
    Figures,
    Machine,
    Process,
    Run,
    Spread,
)

GB = 1_000_000_000


def spread(*values):
    return Spread.of(values)


@pytest.fixture
def figures() -> Figures:
    """Two formats, a stock tool, two engines; the int8 file could not be verified."""
    export = Process(
        seconds=spread(7.5, 9, 8),
        memory=spread(1.2 * GB, 1.3 * GB, 1.25 * GB),
        read=spread(1, 1.1, 1.2),
        graphs=spread(0, 0, 0),
        write=spread(3, 3, 3.5),
    )
    verified = Process(
        seconds=spread(20),
        memory=spread(2 * GB),
        read=spread(1),
        graphs=spread(5),
        write=spread(3),
        verify=spread(7.25),
    )
    return Figures(
        date="2026-11-23T14:05:00Z",
        machine=Machine(
            "A processor of 2026", ("avx2", "vnni", "bfloat16"), cores=2, busy=0.01
        ),
        versions={"irv2": "0.1.0", "onnxruntime": "1.32.0", "openvino": "2026.4.0"},
        threads=2,
        task="classification",
        artifacts=(
            Artifact("onnx-float32", IRV2, 224_000_000, export, verified),
            Artifact(
                "onnx-float32",
                "tf2onnx",
                224_100_000,
                Process(spread(67), spread(8 * GB)),
            ),
            Artifact("onnx-int8", IRV2, 63_000_000, export, failed="it does not agree"),
        ),
        runs=(
            Run(
                "onnx-float32",
                IRV2,
                "onnxruntime",
                load=spread(0.5),
                memory=spread(0.4 * GB, 0.5 * GB, 0.6 * GB),
                latency=spread(0.090, 0.093, 0.110),
                throughput=spread(10, 11.26, 11.3),
                cosine=1.0,
            ),
            Run(
                "onnx-float32",
                "tf2onnx",
                "onnxruntime",
                latency=spread(0.1),
                throughput=spread(10),
                to_ours=1.11,
                cosine=1.0,
            ),
            Run(
                "onnx-float32",
                IRV2,
                "openvino",
                load=spread(1.5),
                memory=spread(0.9 * GB),
                latency=spread(0.023),
                throughput=spread(44),
                to_own_engine=0.247,
                cosine=0.967,
            ),
            Run(
                "onnx-float32",
                "OpenVINO's IR",
                "openvino",
                load=spread(0.8, 0.9, 1.0),
                memory=spread(0.7 * GB),
                cached_load=spread(0.2),
                cached_memory=spread(0.6 * GB),
                latency=spread(0.022),
                throughput=spread(45),
                to_ours=0.96,
                cosine=0.967,
            ),
            Run(
                "onnx-int8",
                IRV2,
                "onnxruntime",
                load=spread(0.2),
                memory=spread(0.3 * GB),
                latency=spread(0.031, 0.032, 0.033),
                throughput=spread(30, 31, 32),
                to_float32=0.344,
                cosine=0.9904,
            ),
            Run("onnx-int8", IRV2, "openvino", failed="it has an op that is unknown"),
        ),
        everything=Everything(
            Process(
                spread(209),
                spread(4.7 * GB),
                read=spread(1),
                graphs=spread(12),
                write=spread(55),
                verify=spread(129),
            ),
            (
                Agreement("onnx-float32", "feature_vector", 1.2e-6, 1.0),
                Agreement("onnx-float32", "classification", 2.4e-7, 0.9999999),
                Agreement("onnx-int8", "feature_vector", 0.05, 0.9954),
            ),
        ),
    )
