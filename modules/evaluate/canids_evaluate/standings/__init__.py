"""Methods over folds, seeds and regimes: what the rule leaderboard is made of."""
