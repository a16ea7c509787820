"""Many runs: those of a suite, or of a sweep; each kept by the hash of its configuration."""
