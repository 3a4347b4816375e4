"""Prepares acquired data: measured, checked against its contract, and stored as sharded Parquet."""
