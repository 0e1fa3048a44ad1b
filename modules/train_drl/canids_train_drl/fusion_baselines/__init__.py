"""The fusions that the policy is compared with: fitted to the same windows, in the same worlds, under the same costs."""
