"""One tree that mirrors the package; contract suites run over fakes and the real thing."""
