"""What the verbs do to records, one stage a file: the seam between the methods and the runner."""
