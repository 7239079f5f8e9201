"""The start-up hook: what makes a Python process observe itself if `PIPEPROF_TRACE` is set.

Each interpreter runs it, so it is of the standard library alone until the process uses a DataLoader.
"""
