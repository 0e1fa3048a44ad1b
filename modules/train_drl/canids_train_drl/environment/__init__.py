"""What the policy and the fusion baselines learn in: detector outputs, observations, augmentation, actions and rewards.

Nothing in this room imports `agent` or `fusion_baselines`.
"""
