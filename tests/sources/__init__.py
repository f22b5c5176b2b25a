"""The Supabase source: what it makes of answers and rows, and what it does against the real servers."""
