"""Action experts: hidden states of action slots to a chunk of actions."""
