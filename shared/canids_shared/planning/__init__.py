"""Planning, when a Snakefile is read: sections, instances, ports, params, resources."""
