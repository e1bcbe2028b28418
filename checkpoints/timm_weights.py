"""Weights of the network as timm keeps them: PyTorch's names and layouts."""

from __future__ import annotations

import numpy as np

from checkpoints import twins
from checkpoints.safetensors import SafeTensors
from checkpoints.tensors import Spec


class TimmWeights:
    """The network in a safetensors file of timm's state dict.

    timm's batch norm has a gamma, which TF-Slim's has not. Where it is not 1, as after
    training in PyTorch, it is multiplied into the kernel, and so into the mean: outputs
    are the same.

    Attributes:
      specs: what there is, by the names and in the layout of TF-Slim's definition where
        it is a variable of that, and by its own name otherwise.
      notes: what a user should know of all that, a sentence each.
    """

    def __init__(self, file: SafeTensors):
        """Finds the network's variables among the arrays of a file."""
        self._file = file
        self._keys: dict[str, str] = {}
        self._gammas: dict[str, np.ndarray] = {}
        self.specs: dict[str, Spec] = {}
        names = {theirs: ours for ours, theirs in twins.timm_names().items()}
        for key, spec in file.specs.items():
            if key in twins.timm_gammas():
                gamma = file.read(key)
                if (gamma != 1).any():
                    self._gammas[twins.timm_gammas()[key]] = gamma
            elif key in names:
                self._keys[names[key]] = key
                axes = twins.axes_from_torch(len(spec.shape))
                shape = tuple(spec.shape[axis] for axis in axes)
                self.specs[names[key]] = Spec(spec.dtype, shape)
            elif not key.endswith(twins.TIMM_COUNTER):
                self._keys[key] = key
                self.specs[key] = spec
        self.notes: tuple[str, ...] = ()
        if self._gammas:
            self.notes = (
                f"{len(self._gammas)} batch norms have a gamma other than 1, which is "
                "multiplied into their kernels: outputs are the same, training is not.",
            )

    def read(self, name: str) -> np.ndarray:
        """Reads the values of a variable, in TF-Slim's layout.

        Raises:
          KeyError: there is no such variable.
          CheckpointError: they cannot be read.
        """
        key = self._keys[name]
        values = self._file.read(key)
        if name == key:
            return values
        values = twins.from_torch(values)
        scope, _, kind = name.rpartition("/")
        if kind in ("weights", "moving_mean"):
            gamma = self._gammas.get(scope.removesuffix("/BatchNorm"))
            if gamma is not None:
                return (values * gamma).astype(values.dtype)
        return np.ascontiguousarray(values)
