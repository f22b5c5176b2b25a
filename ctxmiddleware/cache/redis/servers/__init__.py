"""How Redis is reached: one server, the master that sentinels name, or the nodes of a cluster."""
