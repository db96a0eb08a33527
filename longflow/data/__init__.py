"""Raw datasets: tables, images, geometry and masks."""
