"""Who asks: from a scope to an Identity."""
