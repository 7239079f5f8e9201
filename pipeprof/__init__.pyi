from typing import Any

from pipeprof.analyse.analysis import load as load
from pipeprof.errors import PipeprofError as PipeprofError
from pipeprof.measure.host.storage_probe import probe_storage as probe_storage
from pipeprof.measure.probe.changes.cached import cached as cached
from pipeprof.measure.probe.spans import stage as stage
from pipeprof.measure.storage.slow_directory import emulate as emulate
from pipeprof.simulate.forecast import Forecast as Forecast
from pipeprof.simulate.tuning.tune import tune as tune
from pipeprof.wrapper import ProfiledDataLoader as ProfiledDataLoader
from pipeprof.wrapper import profile as profile

__version__: str

def load_ipython_extension(shell: Any) -> None: ...
