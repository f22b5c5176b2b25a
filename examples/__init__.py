"""Real apps, each under test, and the servers they run on."""
