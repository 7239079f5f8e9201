"""`pipeprof devices [PATH...]`: what this machine has on the way from disk to device."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--measure", is_flag=True, help="Measure the PATHs (else this directory), memory, decoding, link."
)
@click.option(
    "--seconds", default=0.3, show_default=True, type=click.FloatRange(0.01), help="For each point."
)
@click.option("--out", type=click.Path(path_type=Path), help="Where --measure saves the profile.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(paths: tuple[Path, ...], measure: bool, seconds: float, out: Path | None, as_json: bool) -> None:
    """Show what this machine has on the way from disk to device.

    With --measure it reads from a test file of its own in each PATH, of at most a tenth of the free space,
    and saves a profile that `storage.profile` of a scenario takes.
    """
    from pipeprof.measure import probe
    from pipeprof.measure.profile import check_target, write_profile

    if measure:
        target = out or Path(f"devices-{datetime.now():%Y%m%d-%H%M%S}.json")
        check_target(target)
        found = probe.measure(paths or (Path.cwd(),), seconds, _progress)
        write_profile(target, found)
    else:
        found = probe.find(paths)
    if as_json:
        click.echo(json.dumps(found, indent=1))
    else:
        _show(found)
    if measure:
        click.echo(f"\nsaved as {target}; use it with storage.profile: {target}", err=as_json)


def _progress(text: str) -> None:
    click.echo(f"  {text}", err=True)


def _show(found: dict[str, Any]) -> None:
    machine = found["machine"]
    rows = [
        ("cores", f"{machine['usable_cores']:g} of {machine['cpu_count']} ({machine['cpu_name']})"),
        ("memory", f"{machine['memory_bytes'] / 2**30:.1f} GiB"),
        ("accelerator", ", ".join(machine["gpu_names"] or ()) or "not observed"),
    ]
    if "memory" in found:
        rows.append(("memory copy", f"{found['memory']['copy_bytes_per_s'] / 1e9:.1f} GB/s, one core"))
        rows.append(
            ("decode", f"{found['decode']['images_per_s_per_core']:.0f} images/s a core, {_size(found)}")
        )
        rows += _link(found["link"])
    for name, value in rows:
        click.echo(f"{name + ':':<16}{value}")
    for tier in found["tiers"]:
        click.echo()
        _show_place(tier)
    for limit in found["io_limits"]:
        click.echo(f"limited by a control group: {limit}")


def _size(found: dict[str, Any]) -> str:
    return f"{found['decode']['mean_bytes'] / 1000:.0f} KB each"


def _link(link: list[dict[str, Any]] | None) -> list[tuple[str, str]]:
    if link is None:
        return [("host to device", "not observed: there is no CUDA device")]
    rows = []
    for point in link:
        pageable, pinned = (point[f"{kind}_bytes_per_s"] / 1e9 for kind in ("pageable", "pinned"))
        size = f"{point['size_bytes'] / 2**20:.0f} MiB"
        rows.append(("host to device", f"{size}: {pageable:.1f} GB/s pageable, {pinned:.1f} GB/s pinned"))
    return rows


def _show_place(tier: dict[str, Any]) -> None:
    place = tier["place"]
    click.echo(click.style(f"{tier['path']}: {tier['tier'] or 'tier not observed'}", bold=True))
    click.echo(f"  {place['filesystem'] or 'not observed'} from {place['source'] or 'not observed'}")
    for disk in place["disks"]:
        kind = {True: "rotates", False: "does not rotate", None: "not observed"}[disk["rotational"]]
        if disk["virtual"]:
            kind = "virtual: what is below it is not observed"
        through = f" through {', '.join(disk['through'])}" if disk["through"] else ""
        name = f"  {disk['name']}{through}: {disk['model'] or 'no model'}"
        queue = f"scheduler {disk['scheduler']}, read-ahead {disk['read_ahead_kb']} KiB"
        click.echo(f"{name}, {_gigabytes(disk['size_bytes'])}, {kind}, {queue}")
    if "random" in tier:
        _show_rates(tier)


def _gigabytes(size: int | None) -> str:
    return "size not observed" if size is None else f"{size / 1e9:.0f} GB"


def _show_rates(tier: dict[str, Any]) -> None:
    sequential = tier["sequential"]
    past = "" if sequential["direct"] else " (the page cache could not be bypassed)"
    click.echo(f"  sequential: {sequential['bytes_per_s'] / 1e6:,.0f} MB/s{past}")
    click.echo(
        f"  {'random reads':<14}{'outstanding':>12}{'reads/s':>10}{'MB/s':>9}{'p50 ms':>9}{'p99 ms':>9}"
    )
    for point in tier["random"]:
        size, depth, rate = point["size_bytes"], point["queue_depth"], point["reads_per_s"]
        p50, p99 = point["latency_p50_ns"] / 1e6, point["latency_p99_ns"] / 1e6
        limited = "  limited by Python" if point["limited_by_python"] else ""
        row = f"  {size // 1024:>7} KiB   {depth:>12}{rate:>10,.0f}{rate * size / 1e6:>9,.0f}"
        click.echo(f"{row}{p50:>9.2f}{p99:>9.2f}{limited}")
    if tier["fit_error"] is not None:
        _show_model(tier["model"], tier["fit_error"])


def _show_model(model: dict[str, Any], fit_error: float) -> None:
    rate, delay = model["bandwidth_bytes_per_s"] / 1e6, (model["latency_ns"] + model["seek_ns"]) / 1e6
    click.echo(
        f"  as a model: {model['kind']}, {rate:,.0f} MB/s, {delay:.2f} ms a request, "
        f"{model['channels']} channels; {fit_error:.0%} off in the median"
    )
