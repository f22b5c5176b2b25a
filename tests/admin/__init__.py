"""The admin: who may use it, what it answers, and where it can be reached."""
