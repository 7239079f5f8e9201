"""`python -m pipeprof` is `pipeprof`."""

from pipeprof.cli import main

main()
