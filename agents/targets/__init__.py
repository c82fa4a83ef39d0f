"""One probe for many targets: where they come from, and the probes that are made of them."""
