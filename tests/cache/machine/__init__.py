"""The cache against a model, with every await put in an order by chance."""
