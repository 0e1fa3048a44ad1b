"""New pipelines and modules from templates: `python -m canids_shared.tools.scaffold {pipeline,module} NAME`, in a checkout."""
