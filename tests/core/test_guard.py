"""The error boundary: exceptions as one line, and plugin calls that raise."""

import pytest

from nas_meta.core.guard import first_line, plugin_call, type_name
from nas_meta.errors import ConfigError, NasMetaError, PluginError, TrialError


@pytest.mark.parametrize(
    ("error", "with_type", "without_type"),
    [
        (ValueError("bad shape"), "ValueError: bad shape", "bad shape"),
        (ValueError("\n  bad shape\nTraceback:\n  ..."), "ValueError: bad shape", "bad shape"),
        (KeyError("width"), "KeyError: 'width'", "'width'"),
        (RecursionError(), "RecursionError: no message", "RecursionError"),
        (ValueError(" \n "), "ValueError: no message", "ValueError"),
        (SystemExit(), "SystemExit: no message", "SystemExit"),
        (ConfigError("'x' is not a section"), "'x' is not a section", "'x' is not a section"),
    ],
)
def test_an_exception_is_one_line(error, with_type, without_type):
    assert first_line(error) == with_type
    assert first_line(error, with_type=False) == without_type


def test_an_error_that_ray_derives_from_ours_keeps_its_sentence():
    class RayTaskError(TrialError):
        def __str__(self):
            return "the loss is not finite\n\nray::Worker.call() (pid=1)"

    assert first_line(RayTaskError("")) == "the loss is not finite"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ZeroDivisionError("division by zero\nand more"), "Plugin.build() raised ZeroDivisionError: division by zero"),
        (SystemExit(3), "Plugin.build() raised SystemExit: 3"),
    ],
)
def test_an_exception_of_a_plugin_names_the_plugin_and_the_method(error, message):
    class Plugin:
        pass

    for plugin in (Plugin, Plugin()):
        with pytest.raises(PluginError) as caught, plugin_call(plugin, "build"):
            raise error
        assert str(caught.value) == message and caught.value.__cause__ is error


@pytest.mark.parametrize("error", [NasMetaError("a sentence"), KeyboardInterrupt()])
def test_sentences_and_interrupts_pass_unchanged(error):
    with pytest.raises(type(error)) as caught, plugin_call(object(), "build"):
        raise error
    assert caught.value is error


def test_the_type_of_a_value_has_an_article():
    assert [type_name(v) for v in (None, [1], 2.5)] == ["None", "a list", "a float"]
