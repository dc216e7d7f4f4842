"""A space of two towers: an image encoder and a text encoder of two other spaces."""
