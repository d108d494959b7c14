"""Models: a name to an encoder, whichever backend runs it. Importing this package imports nothing else."""
