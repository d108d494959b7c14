"""Which records overlap a benchmark: its items, the indices over them, what was found."""
