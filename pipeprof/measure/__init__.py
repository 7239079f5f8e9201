"""The only room that imports torch, sleeps or starts a process. It ends in a run directory."""
