"""What people say: one reader of it, learned from examples, and the words by which things are named."""
