"""The inner loop of gradient-based learners: which parameters it trains, its steps, and how much memory it may use."""
