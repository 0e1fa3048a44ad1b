"""The fusions that the policy is measured against: learnt on the same windows, in the same worlds, under the same costs."""
