"""Names of other programs on the cores, from a made `/proc`."""

from __future__ import annotations

import os
from pathlib import Path

from pipeprof.measure.host.sensors.programs import Programs

TICKS = os.sysconf("SC_CLK_TCK")


class Machine:
    """A made `/proc`, and a clock."""

    def __init__(self, proc: Path) -> None:
        self.proc, self.now_s = proc, 100.0

    def process(
        self,
        pid: int,
        name: str,
        cpu_s: float,
        parent: int = 1,
        command: tuple[str, ...] = (),
        start: int = 5,
    ) -> None:
        """Write what the kernel says of one process."""
        directory = self.proc / str(pid)
        directory.mkdir(exist_ok=True)
        ticks = round(cpu_s * TICKS)
        fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", *["0"] * 6, str(start), "0"]
        (directory / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")
        (directory / "cmdline").write_text("\0".join((name, *command)) + "\0")

    def programs(self) -> Programs:
        """Begin to look, as the process 10."""
        programs = Programs(self.proc, 10, lambda: self.now_s)
        programs.begin()
        return programs


def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path)
    made.process(10, "python3", 3.0)
    made.process(11, "pt_data_worker", 9.0, parent=10)
    made.process(20, "pytest", 50.0)
    (tmp_path / "meminfo").write_text("no process")
    return made


def test_the_busiest_two_are_named_with_their_cores(tmp_path: Path) -> None:
    made = machine(tmp_path)
    programs = made.programs()
    made.now_s += 10
    made.process(20, "pytest", 62.0)
    made.process(21, "cc1 (plus)", 4.0)
    made.process(22, "cc1 (plus)", 4.0)
    made.process(23, "gzip", 3.0)
    assert programs.busiest() == {"pytest": 1.2, "cc1 (plus)": 0.8}


def test_the_run_itself_and_its_workers_are_no_other_programs(tmp_path: Path) -> None:
    made = machine(tmp_path)
    programs = made.programs()
    made.now_s += 10
    made.process(10, "python3", 12.0)
    made.process(11, "pt_data_worker", 19.0, parent=10)
    made.process(12, "gcc", 9.0, parent=11)
    assert programs.busiest() == {}


def test_python_is_named_with_its_script_and_with_nothing_that_may_be_secret(tmp_path: Path) -> None:
    made = machine(tmp_path)
    programs = made.programs()
    made.now_s += 10
    made.process(30, "python", 9.0, command=("/home/me/fuzz.py", "--token=hunter2"))
    made.process(31, "python3.11", 8.0, command=("-m", "pytest", "secret"))
    assert list(programs.busiest()) == ["python fuzz.py", "python3.11 pytest"]


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    made = machine(tmp_path)
    programs = made.programs()
    made.now_s += 10
    made.process(20, "make", 4.0, start=900)
    assert programs.busiest() == {"make": 0.4}


def test_nothing_is_named_that_used_little_or_in_too_short_a_time(tmp_path: Path) -> None:
    made = machine(tmp_path)
    programs = made.programs()
    made.process(20, "pytest", 51.0)
    made.now_s += 0.5
    assert programs.busiest() == {}
    made.now_s += 99.5
    assert programs.busiest() == {}


def test_a_machine_without_proc_names_none(tmp_path: Path) -> None:
    assert Programs(tmp_path / "none").busiest() == {}
    made = Machine(tmp_path / "none")
    programs = made.programs()
    made.now_s += 10
    assert programs.busiest() == {}


def test_workers_of_another_job_are_named_by_the_program_whose_they_are(tmp_path: Path) -> None:
    made = machine(tmp_path)
    made.process(30, "python", 1.0, command=("train.py",))
    made.process(31, "pt_data_worker", 1.0, parent=30)
    programs = made.programs()
    made.now_s += 10
    made.process(31, "pt_data_worker", 8.0, parent=30)
    assert list(programs.busiest()) == ["python train.py"]
