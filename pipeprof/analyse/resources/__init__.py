"""Resources that a run shares with others: the device of its data, the page cache, the cores."""
