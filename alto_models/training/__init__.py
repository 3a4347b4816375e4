"""What every training stage shares: learning-rate schedule, exact resume, stop on non-finite losses."""
