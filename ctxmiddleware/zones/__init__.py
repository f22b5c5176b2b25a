"""Zones: read from the warehouse outside the request path and joined on read."""
