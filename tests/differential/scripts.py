"""Small scripts, as people write them, with their arguments and their input: run by python and by `trace`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Script:
    """A program of one file or of several; `{script}` is run."""

    text: str
    arguments: tuple[str, ...] = ()
    stdin: str = ""
    files: dict[str, str] = field(default_factory=dict)
    module: str = ""
    """Run with `-m` under this name."""
    name: str = "script.py"
    raw: bytes | None = None
    """The file's bytes, where it is no UTF-8."""
    loads: bool = False
    """It imports torch, which takes seconds."""
    unlike: str = ""
    """A difference that is meant, and why: only the exit code is compared."""


LOADER: Final = """
import torch
from torch.utils.data import DataLoader
class Data:
    def __len__(self): return 8
    def __getitem__(self, index):
        if index == 5 and BAD: raise ValueError("sample five")
        return torch.tensor([index])
"""


def _loads(text: str, bad: bool = False, **more: object) -> Script:
    return Script(f"BAD = {bad}{LOADER}{text}", loads=True, **more)  # type: ignore[arg-type]


SCRIPTS: Final[dict[str, Script]] = {
    # how it ends
    "nothing": Script(""),
    "prints": Script("print('out', flush=True)\nimport sys\nprint('err', file=sys.stderr)\n"),
    "exit 0": Script("import sys\nsys.exit(0)\n"),
    "exit 3": Script("import sys\nsys.exit(3)\n"),
    "exit None": Script("import sys\nsys.exit(None)\n"),
    "exit True": Script("import sys\nsys.exit(True)\n"),
    "exit -1": Script("import sys\nsys.exit(-1)\n"),
    "exit 256": Script("import sys\nsys.exit(256)\n"),
    "exit 2**40": Script("import sys\nsys.exit(2**40)\n"),
    "exit of a text": Script("import sys\nsys.exit('no GPU')\n"),
    "exit of an object": Script("import sys\nsys.exit((1, 2))\n"),
    "exit of a float": Script("import sys\nsys.exit(1.5)\n"),
    "exit()": Script("exit(4)\n"),
    "SystemExit of its own": Script("class Stop(SystemExit): pass\nraise Stop(6)\n"),
    "os._exit": Script("import os, sys\nprint('a'); sys.stdout.flush()\nos._exit(5)\n"),
    "exit in finally": Script("import sys\ntry: 1 / 0\nfinally: sys.exit(9)\n"),
    "killed by itself": Script("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"),
    "abort": Script(
        "import os, signal\nsignal.signal(signal.SIGABRT, signal.SIG_DFL)\nos.kill(os.getpid(), 6)\n"
    ),
    "SIGTERM": Script("import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(5)\n"),
    "SIGTERM handled": Script(
        "import os, signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(8))\n"
        "os.kill(os.getpid(), signal.SIGTERM)\nimport time; time.sleep(5)\n"
    ),
    "SIGINT handled": Script(
        "import os, signal\nprint(signal.getsignal(signal.SIGINT) is signal.default_int_handler)\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT); import time; time.sleep(5)\n"
        "except KeyboardInterrupt: print('saved')\n"
    ),
    "a syntax error": Script("print('a'\n", unlike="what is no script is bad input: exit 2"),
    # errors
    "an error": Script("def f(x):\n    return 1 / x\n\nprint('before')\nf(0)\n"),
    "an error from another": Script(
        "try:\n    {}['a']\nexcept KeyError as error:\n    raise RuntimeError('no a') from error\n"
    ),
    "an error in another": Script("try:\n    {}['a']\nexcept KeyError:\n    int('x')\n"),
    "an error with notes": Script("e = ValueError('bad')\ne.add_note('look here')\nraise e\n"),
    "a group of errors": Script("raise ExceptionGroup('two', [ValueError('a'), KeyError('b')])\n"),
    "an error whose text breaks": Script("class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n"),
    "an error in a module": Script(
        "import other\n", files={"other.py": "def f():\n    assert False, 'x'\nf()\n"}
    ),
    "a syntax error in a module": Script("import other\n", files={"other.py": "x = = 1\n"}),
    "a hook for errors": Script(
        "import sys\nsys.excepthook = lambda kind, error, trace: print('hook', kind.__name__, error, "
        "trace.tb_frame.f_code.co_name, trace.tb_next)\nraise ValueError('bad')\n"
    ),
    "a hook for errors breaks": Script(
        "import sys\nsys.excepthook = lambda *_: 1 / 0\nraise ValueError('bad')\n"
    ),
    "an error in __del__": Script(
        "class A:\n    def __del__(self): raise ValueError('gone')\nA()\nprint('on')\n"
    ),
    "traceback.print_exc": Script(
        "import traceback\ntry:\n    int('x')\nexcept ValueError:\n    traceback.print_exc()\n"
    ),
    "sys.last_value": Script(
        "import atexit, sys\natexit.register(lambda: print(type(getattr(sys, 'last_value', None)).__name__))\n"
        "raise ValueError('bad')\n"
    ),
    "a thread fails": Script(
        "import threading\nt = threading.Thread(target=lambda: 1 / 0, name='mine')\nt.start(); t.join()\n"
    ),
    # what it sees
    "argv": Script("import sys\nprint(sys.argv)\n", ("--out", "x", "-q", "-m", "--", "a b", "")),
    "names": Script("print(sorted(globals()))\nprint(__name__, __file__, __spec__, __package__, __doc__)\n"),
    "the main module": Script(
        "import sys, types\nm = sys.modules['__main__']\nprint(vars(m) is globals(), type(m) is types.ModuleType)\n"
        "print(type(__builtins__).__name__, __annotations__, type(__loader__).__name__, __cached__)\n"
        "import __main__\nprint(__main__ is m)\n"
    ),
    "sys.path": Script("import sys, os\nprint(sys.path[0] == os.path.dirname(os.path.abspath(__file__)))\n"),
    "annotations": Script(
        "from dataclasses import dataclass, fields\nx: int = 1\nclass A:\n    rate: float = 0.1\n"
        "@dataclass\nclass B:\n    n: int\n    names: list[str]\nprint(A.__annotations__, __annotations__)\n"
        "print([field.type for field in fields(B)], B(1, []))\n"
        "def f(a: int) -> str: ...\nprint(f.__annotations__)\n"
    ),
    "annotations as text": Script(
        "from __future__ import annotations\nimport typing\nclass A:\n    rate: float\n"
        "print(A.__annotations__, typing.get_type_hints(A))\nprint(eval('1'), compile('x: int', '', 'exec').co_flags)\n"
    ),
    "compile inherits nothing": Script(
        "d = {}\nexec('class A:\\n    x: int = 1', d)\nprint(d['A'].__annotations__)\n"
    ),
    "its own source": Script(
        "import inspect, linecache\ndef f():\n    return 1  # one\nprint(inspect.getsource(f), open(__file__).read(10))\n"
        "print(f.__code__.co_filename, f.__module__)\n"
    ),
    "pickles": Script(
        "import pickle\nclass A:\n    x = 1\nclass B(A):\n    def __init__(self): self.y = [A()]\n"
        "d = pickle.dumps(B())\nprint(d.hex(), type(pickle.loads(d)).__module__)\n"
    ),
    "interpreter": Script(
        "import sys, gc\nprint(gc.isenabled(), gc.get_threshold(), sys.gettrace(), sys.getprofile(), "
        "sys.getrecursionlimit(), sys.getswitchinterval(), sys.flags, sys.dont_write_bytecode, "
        "sys.displayhook is sys.__displayhook__, sys.excepthook is sys.__excepthook__)\n"
        "import builtins, faulthandler\nprint(sorted(vars(builtins))[:400], faulthandler.is_enabled())\n"
    ),
    "environment": Script(  # but for what has the processes that it starts observed
        "import os\nprint(sorted(name for name in os.environ if not name.startswith('PIPEPROF_TRACE')))\n"
        "print(os.getcwd() == os.environ['PWD'])\n"
    ),
    "logging": Script(
        "import logging\nprint(logging.root.handlers, logging.root.level, logging.lastResort.level)\n"
        "logging.warning('a')\nlogging.getLogger('x').info('b')\n"
    ),
    "warnings": Script(
        "import warnings\nwarnings.warn('a')\nwarnings.warn('b', DeprecationWarning)\n"
        "def f():\n    warnings.warn('c', FutureWarning, stacklevel=2)\nf()\nf()\n"
    ),
    "threads and signals": Script(
        "import threading, signal\nprint(threading.current_thread() is threading.main_thread())\n"
        "print([signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)])\n"
    ),
    "asyncio": Script(
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 3\nprint(asyncio.run(f()))\n"
    ),
    # input and output
    "reads a line": Script("print(input('name? ').upper())\n", stdin="me\nmore\n"),
    "reads all": Script(
        "import sys\nprint(len(sys.stdin.read()), sys.stdin.isatty())\n", stdin="abc\n" * 1000
    ),
    "end of input": Script("input()\n"),
    "closes stdout": Script("import sys\nprint('a')\nsys.stdout.close()\n"),
    "replaces stdout": Script(
        "import sys, io\nsys.stdout = io.StringIO()\nprint('lost')\nsys.__stdout__.write('kept')\n"
    ),
    "stdout None": Script("import sys\nsys.stdout = None\nprint('lost')\n"),
    "writes to descriptors": Script("import os\nprint('second')\nos.write(1, b'first\\n')\n"),
    # at the end
    "atexit": Script(
        "import atexit, sys\natexit.register(print, 'first registered')\natexit.register(print, 'last registered')\n"
        "print('main ends')\n"
    ),
    "atexit after an error": Script(
        "import atexit\natexit.register(print, 'bye')\nraise ValueError('bad')\n"
    ),
    "atexit fails": Script(
        "import atexit\natexit.register(lambda: 1 / 0)\natexit.register(print, 'before')\n"
    ),
    "__del__ at the end": Script("class A:\n    def __del__(self): print('gone')\na = A()\nprint('end')\n"),
    "a thread outlives main": Script(
        "import threading, time\ndef f():\n    time.sleep(0.2)\n    print('thread ends')\n"
        "threading.Thread(target=f).start()\nprint('main ends')\n"
    ),
    # processes
    "forks": Script(
        "import os, sys\npid = os.fork()\nif pid == 0:\n    print('child'); sys.exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    ),
    "a forked child drops an iterator": _loads(
        "import os, sys\nit = iter(DataLoader(Data(), num_workers=1))\nprint(next(it))\nsys.stdout.flush()\n"
        "pid = os.fork()\nif pid == 0:\n    del it\n    os._exit(3)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    ),
    "a spawned process": Script(
        "import multiprocessing as mp\nprint(__name__)\ndef f(x):\n    print('in', __name__, x)\n"
        "if __name__ == '__main__':\n    p = mp.get_context('spawn').Process(target=f, args=(3,))\n"
        "    p.start(); p.join(); print(p.exitcode)\n"
    ),
    "a pool": Script(
        "from concurrent.futures import ProcessPoolExecutor\nimport multiprocessing as mp\ndef f(x): return x * x\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(2, mp.get_context('fork')) as pool: print(list(pool.map(f, range(5))))\n"
    ),
    "another python": Script(
        "import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'print(__name__)'], "
        "capture_output=True, text=True).stdout)\n"
    ),
    # kinds of files
    "a module": Script(
        "import sys\nfrom . import other\nprint(__name__, __package__, __spec__.name, sys.argv, other.x)\n",
        ("--a", "b"),
        files={"pack/__init__.py": "", "pack/other.py": "x = 5\n"},
        module="pack.run",
        name="pack/run.py",
    ),
    "a package": Script(
        "import sys\nprint(__name__, __package__, __spec__.name, sys.argv[1:], __file__)\n",
        ("1",),
        files={"pack/__init__.py": "print('init')\n"},
        module="pack",
        name="pack/__main__.py",
    ),
    "a module that fails": Script("def f(): raise ValueError('bad')\nf()\n", module="script"),
    "no such module": Script("", module="nothere"),
    "no suffix": Script("print(__file__)\n", name="train"),
    "a space in its name": Script("print(__file__)\n", name="my script.py"),
    "Latin-1": Script("", raw=b"# -*- coding: latin-1 -*-\nprint(ascii('\xe9'))\n"),
    "CRLF and a BOM": Script("", raw=b"\xef\xbb\xbfx = '''a\r\nb'''\r\nprint(ascii(x))\r\n"),
    "a directory": Script("import sys\nprint(__name__, sys.argv)\n", ("a",), name="app/__main__.py"),
    # with loaders
    "a loader": _loads(
        "for epoch in range(2):\n    for b in DataLoader(Data(), batch_size=2): print(b.tolist())\n"
    ),
    "a loader that shuffles": _loads(
        "torch.manual_seed(1)\nfor b in DataLoader(Data(), batch_size=3, shuffle=True): print(b.tolist())\n"
        "print(torch.rand(2).tolist())\n"
    ),
    "a loader with workers": _loads(
        "for b in DataLoader(Data(), batch_size=2, num_workers=2): print(b.tolist())\n"
    ),
    "a loader with spawned workers": _loads(
        "if __name__ == '__main__':\n    for b in DataLoader(Data(), batch_size=4, num_workers=1, "
        "multiprocessing_context='spawn'): print(b.tolist())\n"
    ),
    "a bad sample": _loads("for b in DataLoader(Data(), batch_size=2): print(b.tolist())\n", bad=True),
    "a bad sample in a worker": _loads(
        "for b in DataLoader(Data(), batch_size=2, num_workers=1): print(b.tolist())\n", bad=True
    ),
    "a loader is printed": _loads(
        "l = DataLoader(Data(), 2)\nit = iter(l)\nprint(type(l), type(it).__name__, type(it).__module__, len(it))\n"
        "print(sorted(vars(l)), next(it).tolist(), sorted(os for os in vars(it) if 'pipeprof' not in os))\n"
    ),
    "a break, and an exit": _loads(
        "import sys\nfor b in DataLoader(Data(), batch_size=2, num_workers=2):\n    sys.exit(3)\n"
    ),
}
