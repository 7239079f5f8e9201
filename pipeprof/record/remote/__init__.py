"""Records beyond this machine's files: what is sent to a URL that fsspec writes, and read from one."""
