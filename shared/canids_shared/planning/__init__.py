"""What a Snakefile needs when it is read: sections, instances, ports, params, resources."""
