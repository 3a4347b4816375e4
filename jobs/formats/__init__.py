"""Readers of data sets as their publishers ship them: files in, typed raw rows out."""
