"""Generated scenes in which objects are told apart by shape, colour, fill and place."""
