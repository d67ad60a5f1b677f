"""Is it any good: measures of designs, the table of designs to order, pictures."""
