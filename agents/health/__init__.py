"""How well this host is, 0 to 100, over the second that just went by."""
