"""The middleware in the frameworks and under the servers that people use."""
