"""The machine: its disks, its memory, its limits and its sensors."""
