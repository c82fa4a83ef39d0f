"""Dead letters: what there is, what each of them holds, and the way back to their topic, once."""
