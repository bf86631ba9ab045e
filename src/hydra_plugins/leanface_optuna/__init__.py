"""Found by Hydra: `hydra/sweeper=optuna`."""
