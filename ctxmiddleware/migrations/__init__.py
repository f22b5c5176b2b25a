"""The shipped SQL, as package data, and the catalogue that reads it."""
