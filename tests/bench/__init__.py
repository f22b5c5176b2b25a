"""What is measured, each by `python -m tests.bench.<name>`; nothing here is a test."""
