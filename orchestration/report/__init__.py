"""The whole report: the page of `benchmark_report` with all that is known around it and belongs to no hash."""
