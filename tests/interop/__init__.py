"""Our hub and client against programs that others wrote."""
