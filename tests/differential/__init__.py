"""The same under python and under pipeprof: scripts, and kinds of loaders. `python -m tests.differential`."""
