"""Where outside traffic comes in: one module per kind of mapping."""
