"""Zones: the join, the service that keeps them loaded, and BigQuery behind it."""
