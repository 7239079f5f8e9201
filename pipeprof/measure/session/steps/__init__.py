"""The loop's side of a session: its steps, what is marked in its body, and the device's wait."""
