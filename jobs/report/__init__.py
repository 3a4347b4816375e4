"""The benchmark report: one self-contained HTML page made of tables, plots and sample pictures."""
