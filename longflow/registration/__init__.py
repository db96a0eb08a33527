"""Registration: align the scans of each subject, voxel by voxel."""
