"""What runs on hosts, and the simulated fleet that stands in for many of them."""
