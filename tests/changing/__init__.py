"""Tests of `plugin.changing`: whether what is loaded in a block outlives it."""
