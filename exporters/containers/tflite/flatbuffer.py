"""Assembles TFLite flatbuffers from tensors and operators.

The schema is TFLite's public one, of which ai-edge-litert ships the generated classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.network.quantization import Quantization

IDENTIFIER = b"TFL3"
SIGNATURE = "serving_default"

_SCHEMA_VERSION = 3
_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "CONCATENATION": "ConcatenationOptions",
    "RESHAPE": "ReshapeOptions",
    "ADD": "AddOptions",
    "SOFTMAX": "SoftmaxOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
}
_ROOM_FOR_STRUCTURE = 1 << 20


class ModelBuilder:
    """Collects the tensors and operators of a model, in the order of execution."""

    def __init__(self) -> None:
        self._tensors: list[schema.TensorT] = []
        self._buffers = [schema.BufferT()]  # The first is empty by convention.
        self._operators: list[schema.OperatorT] = []
        self._codes: dict[tuple[str, int], int] = {}  # (operator, version) -> index.

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a tensor that the model computes or is given.

        Args:
          name: of the tensor.
          shape: for a batch of one.
          dtype: NumPy's type of it.
          quantization: what integers stand for.

        Returns:
          Its index.
        """
        tensor = schema.TensorT(
            name=name,
            shape=list(shape),
            type=getattr(schema.TensorType, np.dtype(dtype).name.upper()),
            hasRank=True,
        )
        if quantization:
            channels = len(quantization.scale)
            tensor.quantization = schema.QuantizationParametersT(
                scale=quantization.scale,
                zeroPoint=np.full(channels, quantization.zero_point, np.int64),
            )
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def add_activation(
        self,
        name: str,
        shape: Sequence[int],
        dtype: Any,
        quantization: Quantization | None = None,
    ) -> int:
        """Adds a tensor whose first dimension is that of the batch."""
        index = self.add_tensor(name, shape, dtype, quantization)
        self._tensors[index].shapeSignature = [-1, *shape[1:]]
        return index

    def add_constant(
        self, name: str, values: np.ndarray, quantization: Quantization | None = None
    ) -> int:
        """Adds a tensor with its values; returns its index."""
        index = self.add_tensor(name, values.shape, values.dtype, quantization)
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._tensors[index].buffer = self._add_buffer(data)
        return index

    def add_operator(
        self, name: str, version: int, inputs: list[int], output: int, **options: Any
    ) -> None:
        """Adds an operator.

        Args:
          name: TFLite's, such as "CONV_2D".
          version: of the operator, which tells older runtimes whether they know it.
          inputs: indices of tensors.
          output: index of a tensor.
          **options: the operator's options, by their names in the schema.
        """
        kind = _OPTIONS[name]
        self._operators.append(
            schema.OperatorT(
                opcodeIndex=self._codes.setdefault((name, version), len(self._codes)),
                inputs=inputs,
                outputs=[output],
                builtinOptionsType=getattr(schema.BuiltinOptions, kind),
                builtinOptions=getattr(schema, f"{kind}T")(**options),
            )
        )

    def shape(self, tensor: int) -> list[int]:
        """Returns the shape of a tensor."""
        return self._tensors[tensor].shape

    def finish(
        self,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        description: str,
        metadata: Mapping[str, bytes],
    ) -> memoryview:
        """Returns the flatbuffer.

        Args:
          inputs: name in the signature -> tensor.
          outputs: name in the signature -> tensor.
          description: of the model, for people.
          metadata: name -> content.
        """
        entries = []
        for name, content in metadata.items():
            buffer = self._add_buffer(np.frombuffer(content, np.uint8))
            entries.append(schema.MetadataT(name=name, buffer=buffer))
        codes = []
        for name, version in self._codes:
            code = getattr(schema.BuiltinOperator, name)
            codes.append(
                schema.OperatorCodeT(
                    builtinCode=code, deprecatedBuiltinCode=code, version=version
                )
            )
        subgraph = schema.SubGraphT(
            name="main",
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
        )
        signature = schema.SignatureDefT(
            signatureKey=SIGNATURE,
            inputs=_tensor_maps(inputs),
            outputs=_tensor_maps(outputs),
        )
        model = schema.ModelT(
            version=_SCHEMA_VERSION,
            operatorCodes=codes,
            subgraphs=[subgraph],
            description=description,
            buffers=self._buffers,
            metadata=entries,
            signatureDefs=[signature],
        )
        return pack(model)

    def _add_buffer(self, data: np.ndarray) -> int:
        self._buffers.append(schema.BufferT(data=data))
        return len(self._buffers) - 1


def pack(model: schema.ModelT) -> memoryview:
    """Returns the flatbuffer of a model whose buffers are arrays."""
    size = sum(len(b.data) for b in model.buffers if b.data is not None)
    builder = _Builder(size + _ROOM_FOR_STRUCTURE)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return memoryview(builder.Bytes)[builder.Head() :]


class _Builder(flatbuffers.Builder):
    """Aligns arrays to 16 bytes, as the schema wants buffers to be."""

    def CreateNumpyVector(self, x: np.ndarray) -> int:
        self.Prep(16, x.nbytes)
        return super().CreateNumpyVector(x)


def _tensor_maps(tensors: Mapping[str, int]) -> list[schema.TensorMapT]:
    return [
        schema.TensorMapT(name=name, tensorIndex=index)
        for name, index in tensors.items()
    ]
