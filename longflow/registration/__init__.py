"""Registration: bring the scans of each subject into voxel correspondence."""
