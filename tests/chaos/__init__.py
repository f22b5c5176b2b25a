"""Four real processes over real servers that fail at random, and every answer checked."""
