"""One module per stage of the lineage, and the runner that both doors use."""
