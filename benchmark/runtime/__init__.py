"""What training needs of a machine: devices, random streams, processes, clocks, OpenMMLab's registries."""
