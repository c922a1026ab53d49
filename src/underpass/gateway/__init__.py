"""A node: the gateway process everybody can reach."""
