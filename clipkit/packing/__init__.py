"""Writing records and their images as files that others train from: shards of tars, folders or tables."""
