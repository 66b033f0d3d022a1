"""The elastic net of a linear head at one lambda: losses, penalties, rows in chunks, and the solvers."""
