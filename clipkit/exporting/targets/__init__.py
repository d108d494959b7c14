"""The forms in which models ship, one file each."""
