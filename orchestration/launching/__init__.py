"""How a stage's job is started, watched, found again and cancelled, wherever it runs."""
