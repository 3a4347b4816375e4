"""What all HTML pages share: style, figures, and a template environment that puts everything into one file."""
