"""Records, sources, sinks, the runner, the journal. Knows JSON and files; never torch, never an image."""
