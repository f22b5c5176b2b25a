"""Whether contexts of any type come back as they were, and whether requests may share them."""
