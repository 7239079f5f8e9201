"""Observed run: its session, and the doors that open one."""
