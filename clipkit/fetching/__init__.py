"""Images from the network into a folder: many at once, polite to each server, trusting none (`clipkit fetch`)."""
