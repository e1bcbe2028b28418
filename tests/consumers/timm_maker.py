"""Saves timm's network as people do who use PyTorch; its channels are a quarter.

Arguments: a file of weights for timm, safetensors; the directory to write to.
"""

import importlib
import sys
import types

import timm_consumer
import torch
from safetensors.torch import load_file, save_file

NARROWER = 4
theirs = importlib.import_module("timm.models.inception_resnet_v2")


def narrow(channels):
    return channels if channels == 3 else channels // NARROWER


def narrowed(layer):
    """The same layer, of fewer channels."""

    def make(inputs, outputs, *arguments, **options):
        return layer(narrow(inputs), narrow(outputs), *arguments, **options)

    return make


def network(weights):
    theirs.ConvNormAct = narrowed(theirs.ConvNormAct)
    layers = vars(torch.nn) | {"Conv2d": narrowed(torch.nn.Conv2d)}
    theirs.nn = types.SimpleNamespace(**layers)
    model = timm_consumer.timm.create_model("inception_resnet_v2", num_classes=0)
    classes, features = weights["classif.weight"].shape
    model.classif = torch.nn.Linear(features, classes)
    model.load_state_dict(weights)
    return model


def main(weights, directory):
    model = network(load_file(weights)).eval()
    images = torch.zeros(1, 3, 75, 75)
    axes = {"images": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        model,
        images,
        f"{directory}/torch.onnx",
        input_names=["images"],
        dynamic_axes=axes,
        dynamo=False,
    )
    state = model.state_dict()
    torch.save(state, f"{directory}/state.pt")
    save_file(state, f"{directory}/again.safetensors")
    half = {name: values.half() for name, values in state.items()}
    torch.save({"state_dict": half, "epoch": 3}, f"{directory}/half.pth")
    wrapped = torch.nn.ModuleDict({"backbone": model})
    torch.save(wrapped.state_dict(), f"{directory}/wrapped.pt")

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()
    model(torch.rand(4, 3, 96, 96)).square().mean().backward()
    optimizer.step()
    training = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(training, f"{directory}/trained.pth")

    other = timm_consumer.timm.create_model("inception_v4", num_classes=3)
    torch.save(other.state_dict(), f"{directory}/other.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
