"""What Redis does in one step: the Lua scripts, by what they are for."""
