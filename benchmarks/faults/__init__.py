"""What goes wrong, done on purpose: to miniGPT, and to what one would have without it."""
