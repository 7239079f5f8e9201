"""Callbacks and meters for training loops that others wrote. Each is optional and a module of its own:
`pipeprof.integrations.lightning`, `.transformers`, `.otel`, `.ray`. Its
library is imported when it is, not before.
"""
