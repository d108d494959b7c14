"""What to measure of an image, a caption, or both: numbers, no decisions."""
