//! Triangle meshes: files, procedural shapes, isosurfaces, metrics.
