"""The face of the library: the verbs, under the names that the command has for them."""

import inspect as python_inspect

import pytest

import irv2


def test_every_name_is_there():
    assert set(irv2.__all__) <= set(dir(irv2))
    for name in irv2.__all__:
        value = getattr(irv2, name)
        assert python_inspect.getdoc(value), name


def test_the_verbs_are_the_commands():
    verbs = {
        "export",
        "fetch",
        "inspect",
        "install",
        "pack",
        "sign",
        "uninstall",
        "verify",
    }
    assert verbs < set(irv2.__all__)


def test_unknown_names():
    with pytest.raises(AttributeError, match="'irv2' has no attribute 'publish'"):
        irv2.publish  # noqa: B018
