"""What clients and pilots measure, and what the server believes of it."""
