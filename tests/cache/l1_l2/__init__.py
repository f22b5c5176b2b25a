"""The cache with memory and a real Valkey: one instance, and several that share it."""
