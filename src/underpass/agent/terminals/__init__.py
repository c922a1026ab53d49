"""Terminal sessions on a machine: ptys that outlive the links that show them."""
