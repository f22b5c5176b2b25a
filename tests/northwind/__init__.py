"""Contexts of the people in Northwind, a sample database that was not made for us."""
