"""Commands on what a run has made, one file each."""
