"""Starlette's own tests, run with every app inside our middleware."""
