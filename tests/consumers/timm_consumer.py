"""Gives the weights to timm, which computes in PyTorch.

timm asks for torchvision, which it needs to read images, and not for a network.
"""

import importlib.abc
import importlib.machinery
import json
import os
import pathlib
import sys
import types

import checks
import torch
from safetensors import safe_open


class Anything(type):
    """Makes classes whose attributes are their own names."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return f"{cls.__name__}.{name}"


class Stub(types.ModuleType):
    """A module of which everything can be imported, and nothing used."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(name, (), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torchvision, and all that is below it."""

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())

import timm  # noqa: E402


def path_of(task):
    name = f"inception_resnet_v2-{task}-timm-stand-in.safetensors"
    return os.path.join(os.environ["TWINS"], name)


def run(model, images):
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2))
    cfg = model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        return model.eval()((batch - mean) / std).numpy()


def check_classification(reference):
    model = timm.create_model(
        "inception_resnet_v2", checkpoint_path=path_of("classification")
    )
    found = run(model, reference["299x299/images"])
    checks.assert_close(found, reference["299x299/logits"][:, 1:])


def check_feature_vector(reference):
    model = timm.create_model(
        "inception_resnet_v2", checkpoint_path=path_of("feature_vector"), num_classes=0
    )
    found = run(model, reference["224x320/images"])
    checks.assert_close(found, reference["224x320/feature_vector"])


def check_the_header_says_what_timm_does(reference):
    model = timm.create_model("inception_resnet_v2")
    with safe_open(path_of("classification"), "pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == set(model.state_dict())
        for name, values in model.state_dict().items():
            found = file.get_tensor(name)
            assert (found.shape, found.dtype) == (values.shape, values.dtype), name
    for key in ("mean", "std", "input_size", "crop_pct", "interpolation"):
        expected = model.pretrained_cfg[key]
        expected = list(expected) if isinstance(expected, tuple) else expected
        assert json.loads(metadata[key]) == expected, key
    assert metadata["architecture"] == "inception_resnet_v2"
    assert int(metadata["num_classes"]) == model.num_classes == 1000


def check_what_irv2_computes_with_timm(reference):
    sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
    from exporters.containers.timm import container, foreign

    images = reference["299x299/images"]
    path = pathlib.Path(path_of("classification"))
    expected = reference["299x299/logits"][:, 1:]
    with container.open(path) as artifact:
        checks.assert_close(artifact.run(images)["logits"], expected)
    with foreign.run(path, 1000) as model:
        assert model.library == f"timm {timm.__version__}, PyTorch {torch.__version__}"
        checks.assert_close(model.run(2 * images - 1)["0"], expected)


if __name__ == "__main__":
    checks.main(globals())
