"""The shipped SQL on real servers, under both rules for lower()."""
