"""The cache over Redis in each shape people run it in: what it does, and what it does when a server is lost."""
