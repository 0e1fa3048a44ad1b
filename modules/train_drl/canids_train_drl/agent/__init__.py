"""The policy: Double DQN, and the file in which a trained policy is kept."""
