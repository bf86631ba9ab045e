"""Found by Hydra: `hydra/launcher=ray`, whose settings are in conf/sweep/hydra/launcher/ray.yaml."""
