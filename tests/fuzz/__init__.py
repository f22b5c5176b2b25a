"""Everything that comes from outside, made up by a fuzzer: `nox -s fuzz`."""
