"""Tables, pictures and words for a person."""
