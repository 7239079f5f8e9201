"""`pipeprof devices [PATH...]`: what this machine has on the way from disk to device."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeprof import units
from pipeprof.cli.options import Directory, json_option
from pipeprof.devices.survey import LinkRate, ReadPoint, Survey, SurveyedPlace

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--measure",
    is_flag=True,
    help="Measure the PATHs (default: this directory), memory, decoding and the link.",
)
@click.option(
    "--seconds",
    default=0.3,
    show_default=True,
    type=click.FloatRange(0.01),
    help="Duration of each measurement.",
)
@click.option("--out", type=Directory(), help="Where --measure saves the profile.")
@json_option
def command(paths: tuple[Path, ...], measure: bool, seconds: float, out: Path | None, as_json: bool) -> None:
    """Show this machine's hardware along the path of the data, from disk to device.

    With --measure, read from a test file created in each PATH (at most a tenth of the free space) and save a
    device profile for a scenario's `storage.profile`.
    """
    from pipeprof.measure.host.profile import check_target, write_profile

    if measure:
        target = out or Path(f"devices-{datetime.now():%Y%m%d-%H%M%S}.json")
        check_target(target)
        from pipeprof.measure.bench.device_profile import measure_devices

        survey = measure_devices(paths or (Path.cwd(),), seconds, _progress)
        write_profile(target, survey)
    else:
        from pipeprof.measure.host.survey import survey_places

        survey = survey_places(paths)
    if as_json:
        click.echo(json.dumps(survey, indent=1))
    else:
        _show(survey)
    if measure:
        click.echo(f"\nsaved as {target}; use it with storage.profile: {target}", err=as_json)


def _progress(text: str) -> None:
    click.echo(f"  {text}", err=True)


def _show(survey: Survey) -> None:
    """Print the survey of a machine, or its profile if it was measured."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    console.print(_pairs([*_machine(survey["machine"]), *_rates(survey)]))
    for tier in survey["tiers"]:
        console.print()
        _show_place(tier, console)
    for limit in survey["io_limits"]:
        console.print(f"limited by a control group: {limit}")


def _pairs(rows: Sequence[tuple[str, str]]) -> Table:
    """Lay out names and values in two columns."""
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column()
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(f"{name}:", value)
    return grid


def _machine(machine: dict[str, Any]) -> list[tuple[str, str]]:
    usable, total = (units.count(machine[key]) for key in ("usable_cores", "cpu_count"))
    return [
        ("cores", f"{usable} of {total} ({machine['cpu_name'] or 'CPU not observed'})"),
        ("memory", units.size(machine["memory_bytes"])),
        ("accelerator", ", ".join(machine["gpu_names"] or ()) or units.NOT_OBSERVED),
    ]


def _rates(survey: Survey) -> list[tuple[str, str]]:
    """Return what was measured of memory, decoding and the link; nothing of a survey without measurement."""
    if "memory" not in survey:
        return []
    decode = survey["decode"]
    images = f"{units.digits(decode['images_per_s_per_core'])} images/s per core"
    return [
        ("memory copy", f"{units.byte_rate(survey['memory']['copy_bytes_per_s'])}, one core"),
        ("decode", f"{images}, {units.size(decode['mean_bytes'])} each"),
        *_link(survey["link"]),
    ]


def _link(link: list[LinkRate] | None) -> list[tuple[str, str]]:
    if link is None:
        return [("host to device", f"{units.NOT_OBSERVED}: torch sees no device")]
    rows = []
    for point in link:
        pageable = units.byte_rate(point["pageable_bytes_per_s"])
        pinned = units.byte_rate(point["pinned_bytes_per_s"])
        copied = f"{point['size_bytes'] // 2**20} MiB"
        rows.append(("host to device", f"{copied}: {pageable} pageable, {pinned} pinned"))
    return rows


def _show_place(tier: SurveyedPlace, console: Console) -> None:
    place = tier["place"]
    console.print(f"{tier['path']}: {tier['tier'] or 'tier not observed'}", style="bold", soft_wrap=True)
    filesystem, source = (place[key] or units.NOT_OBSERVED for key in ("filesystem", "source"))
    console.print(f"  {filesystem} from {source}", soft_wrap=True)
    for disk in place["disks"]:
        console.print(f"  {_disk(disk)}", soft_wrap=True)
    if "random" in tier:
        _show_rates(tier, console)


def _disk(disk: dict[str, Any]) -> str:
    kind = {True: "rotates", False: "does not rotate", None: units.NOT_OBSERVED}[disk["rotational"]]
    if disk["virtual"]:
        kind = "virtual: what is below it is not observed"
    through = f" through {', '.join(disk['through'])}" if disk["through"] else ""
    size = "size not observed" if disk["size_bytes"] is None else units.size(disk["size_bytes"])
    queue = f"scheduler {disk['scheduler']}, read-ahead {disk['read_ahead_kb']} KiB"
    return f"{disk['name']}{through}: {disk['model'] or 'no model'}, {size}, {kind}, {queue}"


def _show_rates(tier: SurveyedPlace, console: Console) -> None:
    sequential = tier["sequential"]
    past = "" if sequential["direct"] else " (the page cache could not be bypassed)"
    console.print(f"  sequential: {units.byte_rate(sequential['bytes_per_s'])}{past}")
    console.print(_random_reads(tier["random"]))
    if tier["fit_error"] is not None:
        console.print(f"  {_model(tier['model'], tier['fit_error'])}", soft_wrap=True)


def _random_reads(points: Sequence[ReadPoint]) -> Table:
    """Lay out rate and latency by size and queue depth."""
    from rich import box
    from rich.table import Table

    table = Table(title="random reads", title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for head in ("reads of", "depth", "reads/s", "bytes/s", "median", "p99"):
        table.add_column(head, justify="right")
    table.add_column("")
    for point in points:
        size, rate = point["size_bytes"], point["reads_per_s"]
        table.add_row(
            f"{size // 1024} KiB",
            str(point["queue_depth"]),
            units.digits(rate),
            units.byte_rate(rate * size),
            units.duration(point["latency_p50_ns"]),
            units.duration(point["latency_p99_ns"]),
            "Python-bound" if point["limited_by_python"] else "",
        )
    return table


def _model(model: dict[str, Any], fit_error: float) -> str:
    delay = units.duration(model["latency_ns"] + model["seek_ns"])
    bandwidth = units.byte_rate(model["bandwidth_bytes_per_s"])
    return (
        f"as a model: {model['kind']}, {bandwidth}, {delay} per request, "
        f"{units.plural(model['channels'], 'channel')}; median error {units.percent(fit_error)}"
    )
