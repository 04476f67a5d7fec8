"""An index in a folder: versions written whole, published atomically, checked on opening."""
