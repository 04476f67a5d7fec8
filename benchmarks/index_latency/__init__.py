"""How fast, large and exact the product's kinds of index are, against other libraries."""
