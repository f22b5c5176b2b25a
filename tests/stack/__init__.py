"""The whole of it, over real servers."""
