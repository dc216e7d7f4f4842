"""The strategies that ship with nas-meta, each a plugin, in folders by the library or the method that they build on.

Importing this package configures NNI before any of its modules is used: without Lightning and without output.
"""

import contextlib
import importlib.util
import io

import nni

if importlib.util.find_spec("gym"):
    # NNI imports gym if it is installed, and gym prints a notice to stderr. Importing it here first hides the notice.
    with contextlib.redirect_stderr(io.StringIO()):
        importlib.import_module("gym")
nni.set_default_framework("none")
nni.silence_stdout()
