"""Networks: modules with shapes in and shapes out, without knowledge of datasets."""
