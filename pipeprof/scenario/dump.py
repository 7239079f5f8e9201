"""A scenario as a file again: YAML that says only what differs from the defaults."""

from __future__ import annotations

import yaml

from pipeprof.scenario.schema import Scenario


def to_yaml(scenario: Scenario, comment: str = "") -> str:
    """Return the text of a file that loads as `scenario`, below `comment`, which may have several lines."""
    values = scenario.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"cell"})
    head = "".join(f"# {line}\n" for line in comment.splitlines())
    return head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
