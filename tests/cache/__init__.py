"""The cache, by tier and by topology."""
