"""The page of a prepared partition: what was read, accepted and quarantined, with samples of both."""
