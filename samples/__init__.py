"""Photos that come with clipkit: for first commands, and to hold exports to. README.md has authors and licences."""
