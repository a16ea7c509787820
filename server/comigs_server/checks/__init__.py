"""Whether a configuration can run, before anything is started."""
