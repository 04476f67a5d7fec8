"""Fitting the encoder's vectors to a collection, in closed form: no network is trained."""
