# What jobs took, and what to ask for in the next run. The Snakefile includes this.


rule all_resources:
    input:
        "results/resources/profile/config.yaml",


# Of whatever has run so far, over all datasets: it reads what is there and makes nothing run, hence no input.
rule resources:
    output:
        table="<resources>/resources.parquet",
        figure="<resources>/resources.svg",
        markdown="<resources>/resources.md",
        profile="<resources>/profile/config.yaml",
    log:
        "<resources>/log.txt",
    conda:
        "environment.yaml"
    threads: 1
    resources:
        **resources_for("small"),
    params:
        spec=stage.spec("canids_evaluate.resources", "resources"),
    message:
        "what rules took, and what to ask for"
    shell:
        "$CANIDS_EVALUATE_PYTHON -m canids_evaluate.resources --spec {params.spec:q}"
        " --table {output.table} --figure {output.figure} --markdown {output.markdown} --profile {output.profile}"
        " --runs experimentruns --results results"
        " 2> {log} || {{ cat {log} >&2; exit 1; }}"
