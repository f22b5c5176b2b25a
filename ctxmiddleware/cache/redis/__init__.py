"""The tier a fleet shares: Redis or Valkey, what travels there, and how instances hear of each other."""
