"""From a model to files that ship: targets, the graphs they stand on, and the report that says how true they are."""
