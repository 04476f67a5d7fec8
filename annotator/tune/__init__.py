"""Choosing on the index itself how its neighbours vote, without a validation split."""
