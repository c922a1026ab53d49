"""The commands a person types; no logic beyond arguments and printing."""
