"""Two versions side by side: parameters, data, code, figures and answers."""
