"""Search space that combines an image encoder and a text encoder from two other spaces."""
