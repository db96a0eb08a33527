"""Self-supervised pretraining of segmentation networks on unlabelled series."""
