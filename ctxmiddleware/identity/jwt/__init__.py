"""Who asks, as a signed token says."""
