"""The routes: one module per noun, and what they share (envelope, security, middleware)."""
