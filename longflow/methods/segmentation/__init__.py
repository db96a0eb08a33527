"""Methods that label every voxel of a scan."""
