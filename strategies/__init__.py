"""The strategies that ship: each a plugin; NNI's stand behind one adapter.

NNI must be told before anything of it is used that no Lightning is needed, and that its output is not wanted.
"""

import contextlib
import importlib.util
import io

import nni

if importlib.util.find_spec("gym"):
    # NNI imports it wherever it is installed, and it greets every process with a notice about its successor.
    with contextlib.redirect_stderr(io.StringIO()):
        importlib.import_module("gym")
nni.set_default_framework("none")
nni.silence_stdout()
