"""The demo: the same app without and with the middleware, measured on real servers; `python -m examples.demo`."""
