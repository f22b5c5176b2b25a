"""Three instances on one Redis."""
