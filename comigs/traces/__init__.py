"""When devices are there, in simulated time: read, made up, and asked."""
