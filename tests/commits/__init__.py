"""Transactions, invalidations and reads in random order on a real PostgreSQL, each answer compared with its history."""
