"""Image files as they come from outside: described, bounded and stripped of metadata before any decoder sees them."""
