"""Sending of a record to a URL while its run goes on, by a process of its own."""
