"""Statistics of a track record: Sharpe ratio tests, trials, pairs, bootstrap, overfitting, soundness."""
