"""The images of an index as points in two dimensions: as a picture, and as a page."""
