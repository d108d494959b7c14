"""The verbs, one file each. To add one, add a file: CONTRIBUTING.md says how. Nothing else needs an edit.

A file's name is the verb's (`train_adapter.py` is `clipkit train-adapter`, `concepts__count.py` is `clipkit concepts
count`). Its docstring's first line is the summary,
its line `Group: NAME` the heading under which `clipkit --help` lists it, and its function `run` the verb.
"""

# The order of the headings in `clipkit --help`; a heading that is not named here comes after these.
GROUPS = ("Ask a model", "Records", "Curate", "Adapt", "Measure", "Ship", "About")
