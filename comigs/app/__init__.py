"""What starts things: runs, comparisons, submissions to a SuperLink."""
