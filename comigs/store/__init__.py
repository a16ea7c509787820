"""Files that are written and read: whole, by a name of their own, and never through a link."""
