"""`pipeprof help TOPIC`: how to read a verdict, and the help of a verb."""

from __future__ import annotations

import shutil
from typing import Final

import click

from pipeprof.errors import PipeprofError
from pipeprof.suggest import nearest

_NARROWEST, _WIDEST = 40, 100
_LEAVE: Final = 14
"""Columns of a topic's name in the list of them."""


@click.command()
@click.argument("topic", required=False)
@click.pass_context
def command(ctx: click.Context, topic: str | None) -> None:
    """Explain TOPIC (verdict, mechanisms, storage, prediction or ranks), or show the help of a verb."""
    from pipeprof.report.text.topics import TOPICS, topic_lines

    width = min(_WIDEST, max(_NARROWEST, shutil.get_terminal_size((80, 24)).columns))
    if topic is None:
        for name, (about, _) in TOPICS.items():
            click.echo(f"{name:<{_LEAVE}}{about}")
        return
    if topic in TOPICS:
        for line in topic_lines(topic, width):
            click.echo(line)
        return
    group = ctx.parent
    assert group is not None and isinstance(group.command, click.Group)
    verb = group.command.get_command(group, topic)
    if verb is None:
        words = [*TOPICS, *group.command.list_commands(group)]
        raise PipeprofError(f"there is no topic and no verb {topic}", nearest(topic, words))
    with click.Context(verb, info_name=topic, parent=group) as of_verb:
        click.echo(verb.get_help(of_verb))
