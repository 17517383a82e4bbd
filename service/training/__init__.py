"""From labelled fields to a model: data, augmentation, training, evaluation, ablation."""
