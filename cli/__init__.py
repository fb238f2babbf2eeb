"""The `spdf` command: one module per noun, thin."""
