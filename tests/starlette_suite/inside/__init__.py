"""What is loaded into the process that runs Starlette's tests, and knows nothing of ours."""
