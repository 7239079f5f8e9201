"""The processes of one traced program: each observes itself, and all write below one directory."""
