"""What every tier that a fleet shares does: the real one, and the one the state machine runs over."""
