"""The start-up hook of `pipeprof trace` if the wheel's `pipeprof_trace.pth` is not installed.

Its directory is put first on PYTHONPATH. A `sitecustomize` of the user's, which it hides, is run too.
"""

import os
import sys

_here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - this runs in each interpreter
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _here]  # noqa: PTH100
_ours = sys.modules.pop("sitecustomize", None)
try:  # noqa: SIM105 - contextlib is not imported in each interpreter
    __import__("sitecustomize")  # the next one on the path
except ImportError:
    pass
if _ours is not None:
    sys.modules.setdefault("sitecustomize", _ours)  # the import system looks for it there

try:
    from pipeprof.startup import hook
except ImportError:  # another environment than pipeprof's
    pass
else:
    hook.start()
