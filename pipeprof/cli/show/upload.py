"""`pipeprof upload DIR`: send what stayed of a record that was to go to a URL."""

from __future__ import annotations

from pathlib import Path

import click

from pipeprof import units
from pipeprof.cli.say import say
from pipeprof.errors import TraceError


@click.command()
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
def command(directory: Path) -> None:
    """Send the rest of a record that `--out URL` left behind in DIRECTORY, and remove it here.

    Nothing is sent twice.
    """
    from pipeprof.record.remote.outgoing import Outgoing, destination
    from pipeprof.record.remote.places import reached
    from pipeprof.record.schema import RUN_JSON
    from pipeprof.redact import redact

    found = destination(directory.absolute())
    if found is None:
        raise TraceError(
            f"{directory} is not the local part of a record at a URL",
            "give the directory that pipeprof named",
        )
    root, url = found
    with reached(url):
        outgoing, runs = Outgoing(root, url), len(list(root.rglob(RUN_JSON)))
        outgoing.send_part(root)
        outgoing.remove(root)
    say(f"{units.plural(runs, 'run')} sent to {redact(url)}")
