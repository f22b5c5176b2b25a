"""What types may contexts have, and do they come back from Redis as they were?"""
