"""New pipelines and modules from templates: `python -m canids_shared.scaffold {pipeline,module} NAME`, in a checkout."""
