"""The strategies that ship: each a plugin; NNI's stand behind one adapter.

NNI must be told before anything of it is used that no Lightning is needed, and that its output is not wanted.
"""

import nni

nni.set_default_framework("none")
nni.silence_stdout()
