"""What the tests of several rooms share."""

from tests.measure.attach.jobs import ptrace_right

__all__ = ["ptrace_right"]
