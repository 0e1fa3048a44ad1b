# Time and memory of finished jobs, and what to request for the next run. The Snakefile includes this.
from canids_shared.planning.stage import LOGGED


rule all_resources:
    input:
        "results/resources/profile/config.yaml",


# It reads measurements of all finished jobs, over all datasets, and starts no other job: hence it has no input.
rule resources:
    output:
        table="<resources>/resources.parquet",
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
        "time and memory of the rules, and what to request"
    shell:
        (
            '"$CANIDS_EVALUATE_PYTHON" $CANIDS_EVALUATE_STAND_INS -m canids_evaluate.resources --spec {params.spec:q}'
            " --table {output.table} --markdown {output.markdown} --profile {output.profile}"
            " --runs experimentruns --results results"
        )
        + LOGGED
