"""Brings data sets in, in their publishers' formats: drawn as sample scenes, or from a local folder."""
