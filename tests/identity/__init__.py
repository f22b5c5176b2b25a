"""Who asks: what the shipped ways of finding out make of a scope."""
