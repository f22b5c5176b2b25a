"""The mountable sub-app that shows the cache and clears it."""
