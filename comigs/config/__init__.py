"""Settings as written: what there is, its rules, and how YAML becomes a `RunConfig`."""
