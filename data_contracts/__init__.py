"""What each data set must satisfy, and what happens to rows that do not."""
