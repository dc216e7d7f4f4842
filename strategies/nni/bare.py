"""Makes NNI's package of super-modules importable without its ``__init__``, which would import Lightning.

Importing this module registers an empty package under the name of NNI's. Its modules can then be imported, and so can
the modules that import them, such as the hub of model spaces.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import nni

PACKAGE = "nni.nas.oneshot.pytorch"
if PACKAGE not in sys.modules:
    _bare = types.ModuleType(PACKAGE)
    _bare.__path__ = [str(Path(nni.__file__).parent.joinpath(*PACKAGE.split(".")[1:]))]
    sys.modules[PACKAGE] = _bare
