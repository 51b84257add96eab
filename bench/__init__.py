"""Performance harness: what guarding a model costs, as ratios measured side by side in one run."""
