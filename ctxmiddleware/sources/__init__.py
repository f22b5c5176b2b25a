"""Where contexts come from on a miss."""
