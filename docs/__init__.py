"""Pages, and the code that draws and writes some of them."""
