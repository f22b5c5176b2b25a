"""The cache with memory only."""
