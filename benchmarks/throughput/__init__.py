"""How fast images become annotations, what memory a build takes, and what fitting costs."""
