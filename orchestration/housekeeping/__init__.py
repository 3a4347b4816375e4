"""What is old and that nothing refers to is found, listed and, where asked for, deleted."""
