"""Finding, reading and decoding of images, within limits; nothing else opens one."""
