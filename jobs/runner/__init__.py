"""How a job is launched, watched and recorded; never what it computes."""
