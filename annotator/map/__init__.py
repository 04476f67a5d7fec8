"""Two-dimensional maps of the images of an index, as a picture and as a page."""
