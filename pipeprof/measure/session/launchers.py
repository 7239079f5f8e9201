"""The launchers, and the environment variables in which each gives a process its place in a job.

torch's own names come first: a launcher that starts torchrun on each node sets its variables for the node's
process, and torchrun those of the ranks. Sources: torch.distributed's elastic agent (accelerate starts it
too), `ray.train.torch`, srun(1), mpirun(1) of Open MPI, MPICH's Hydra and Intel MPI, MVAPICH2's guide,
Lightning's `SubprocessScriptLauncher`, Kubernetes' indexed jobs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

_MASTER: Final = "MASTER_ADDR"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_TASKS: Final = re.compile(r"(\d+)(?:\(x(\d+)\))?")
"""Entry of SLURM's list of tasks by node: `4(x2)` are two nodes with four tasks each."""


class RankPlace(NamedTuple):
    """Place of a process in a job, according to its environment."""

    rank: int
    world_size: int | None
    """None if the launcher does not say, as with an indexed job of Kubernetes."""
    local_rank: int | None
    local_world_size: int | None
    node: int | None

    @property
    def is_of_several(self) -> bool:
        """Return True if this is a rank of a job of several, or of an unknown number."""
        return self.world_size is None or (self.rank < self.world_size and self.world_size > 1)


class Launcher(NamedTuple):
    """Environment variables of one launcher; an empty name if it has no such variable."""

    names: str
    """Launchers that set these variables."""
    rank: str
    world_size: str
    local_rank: str = ""
    local_world_size: str = ""
    node: str = ""
    size_is_told: bool = True
    """False if the launcher gives a process its number, and not the number of all."""


LAUNCHERS: Final = (
    Launcher(
        "torchrun, accelerate, Ray Train",
        "RANK",
        "WORLD_SIZE",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "GROUP_RANK",
    ),
    # of a job's step: the same names without STEP are set in a batch script too, which is one process
    Launcher(
        "SLURM's srun",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_LOCALID",
        "SLURM_STEP_TASKS_PER_NODE",
        "SLURM_NODEID",
    ),
    Launcher(
        "Open MPI",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",  # its NODE_RANK counts processes
    ),
    Launcher(
        "MVAPICH2, which accelerate starts too",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    Launcher("PMI: MPICH, Intel MPI", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    # It numbers ranks itself, as node x ranks of a node + the rank on it.
    Launcher("Lightning", "", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK"),
    Launcher("Kubernetes' indexed jobs", "JOB_COMPLETION_INDEX", "WORLD_SIZE", size_is_told=False),
)
"""The first whose variables are set is used."""
TORCH, KUBERNETES = LAUNCHERS[0], LAUNCHERS[-1]


def place_in(environment: Mapping[str, str], launchers: tuple[Launcher, ...] = LAUNCHERS) -> RankPlace | None:
    """Return the place given by an environment, from the first launcher in the table that set it."""
    for launcher in launchers:
        rank = _rank(environment, launcher)
        world = number(environment, launcher.world_size)
        if rank is not None and (world is not None or not launcher.size_is_told):
            return completed(environment, launcher, rank, world)
    return None


def completed(environment: Mapping[str, str], launcher: Launcher, rank: int, world: int | None) -> RankPlace:
    """Return the place of `rank`, completed from the launcher's other variables."""
    local = number(environment, launcher.local_rank)
    per_node = _ranks_of_node(environment, launcher)
    if per_node is None and environment.get(_MASTER) in _LOOPBACK:
        per_node = world  # ranks that meet at a node's own address are all there
    numbers = (number(environment, name) for name in (launcher.node, "NODE_RANK"))
    node = next((each for each in numbers if each is not None), None)
    if node is None and per_node:
        node = rank // per_node
    return RankPlace(rank, world, local, per_node, node)


def number(environment: Mapping[str, str], name: str) -> int | None:
    """Return a variable's whole number; None for any other value, and for an empty name."""
    text = environment.get(name, "") if name else ""
    return int(text) if text.isdecimal() else None


def _rank(environment: Mapping[str, str], launcher: Launcher) -> int | None:
    if launcher.rank:
        return number(environment, launcher.rank)
    node, local = number(environment, launcher.node), number(environment, launcher.local_rank)
    per_node = number(environment, launcher.local_world_size)
    if node is None or local is None or (node and per_node is None):
        return None
    return node * (per_node or 0) + local


def _ranks_of_node(environment: Mapping[str, str], launcher: Launcher) -> int | None:
    """Return the ranks on this node. SLURM lists all nodes' in one variable, such as `4(x2),3`."""
    plain = number(environment, launcher.local_world_size)
    node = number(environment, launcher.node)
    if plain is not None or node is None:
        return plain
    counts: list[int] = []
    for entry in environment.get(launcher.local_world_size, "").split(","):
        match = _TASKS.fullmatch(entry)
        if match is None or len(counts) > node:
            break
        repeated = min(int(match[2] or 1), node + 1)  # as many as are needed to find this node
        counts += [int(match[1])] * repeated
    return counts[node] if node < len(counts) else None
