"""ctxmiddleware: who is this user and what may they see, on every request."""

__version__ = "0.1.0"
