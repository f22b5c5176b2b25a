"""How an app says that what is known of a user has changed: after the COMMIT, or around a transaction of any length."""
