"""The two-tier cache: memory in the process, Redis for the fleet. It knows no users and no sources."""
